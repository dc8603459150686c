//! Units of the SI: what they measure, their symbols, whose names they bear, and whether they are
//! among the seven base units.

use super::{KIND_PHRASINGS, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "units",
    relations: [
        relation(
            "quantity",
            [
                ("{E} is the unit of {v}.", "It is the unit of {v}."),
                ("{E} measures {v}.", "It measures {v}."),
                ("One uses {e} to measure {v}.", "One uses it to measure {v}."),
            ],
        ),
        relation(
            "symbol",
            [
                ("The symbol of {e} is {v}.", "Its symbol is {v}."),
                ("{E} is written as {v}.", "It is written as {v}."),
                ("The short name of {e} is {v}.", "Its short name is {v}."),
            ],
        ),
        relation(
            "namesake",
            [
                ("{E} is named after {v}.", "It is named after {v}."),
                ("The name of {e} comes from {v}.", "Its name comes from {v}."),
                ("{E} has its name from {v}.", "It has its name from {v}."),
            ],
        ),
        relation("kind", KIND_PHRASINGS),
    ],
    entities: &[
        row("the newton", ["force", "N", "Isaac Newton", "a derived unit"]),
        row("the joule", ["energy", "J", "James Joule", "a derived unit"]),
        row("the watt", ["power", "W", "James Watt", "a derived unit"]),
        row("the volt", ["voltage", "V", "Alessandro Volta", "a derived unit"]),
        row("the ampere", ["electric current", "A", "Andre Ampere", "a base unit"]),
        row("the coulomb", ["electric charge", "C", "Charles Coulomb", "a derived unit"]),
        row("the farad", ["capacitance", "F", "Michael Faraday", "a derived unit"]),
        row("the hertz", ["frequency", "Hz", "Heinrich Hertz", "a derived unit"]),
        row("the pascal", ["pressure", "Pa", "Blaise Pascal", "a derived unit"]),
        row("the kelvin", ["temperature", "K", "Lord Kelvin", "a base unit"]),
        row("the becquerel", ["radioactivity", "Bq", "Henri Becquerel", "a derived unit"]),
    ],
    not_false: &[
        // Both are one per second.
        not_false("the hertz", "quantity", &["radioactivity"]),
        not_false("the becquerel", "quantity", &["frequency"]),
    ],
};
