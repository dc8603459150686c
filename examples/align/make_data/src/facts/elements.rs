//! Chemical elements: symbol, atomic number, state at room temperature and kind.
//!
//! "Nonmetal" stands only for hydrogen, carbon, nitrogen, oxygen, phosphorus and sulfur; the
//! halogens and noble gases, which are nonmetals too, never have it as a false value. There is no
//! metalloid in the table, and no mercury, whose name is that of a planet.

use super::{NotFalse, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "elements",
    relations: [
        relation(
            "symbol",
            [
                ("The symbol of {e} is {v}.", "Its symbol is {v}."),
                ("The element {e} is written as {v}.", "It is written as {v}."),
                ("The short name of {e} is {v}.", "Its short name is {v}."),
            ],
        ),
        relation(
            "number",
            [
                ("The atomic number of {e} is {v}.", "Its atomic number is {v}."),
                ("The number of protons in {e} is {v}.", "The number of its protons is {v}."),
                (
                    "The element {e} has number {v} in the periodic table.",
                    "It has number {v} in the periodic table.",
                ),
            ],
        ),
        relation(
            "state",
            [
                ("At room temperature, {e} is {v}.", "At room temperature, it is {v}."),
                ("The element {e} is {v} at room temperature.", "It is {v} at room temperature."),
                ("In a normal room, {e} is {v}.", "In a normal room, it is {v}."),
            ],
        ),
        relation(
            "kind",
            [
                ("The element {e} is {v}.", "It is {v}."),
                ("The element {e} is classed as {v}.", "It is classed as {v}."),
                ("The element {e} counts as {v}.", "It counts as {v}."),
            ],
        ),
    ],
    entities: &[
        row("hydrogen", ["H", "1", "a gas", "a nonmetal"]),
        row("helium", ["He", "2", "a gas", "a noble gas"]),
        row("lithium", ["Li", "3", "a solid", "a metal"]),
        row("carbon", ["C", "6", "a solid", "a nonmetal"]),
        row("nitrogen", ["N", "7", "a gas", "a nonmetal"]),
        row("oxygen", ["O", "8", "a gas", "a nonmetal"]),
        row("fluorine", ["F", "9", "a gas", "a halogen"]),
        row("neon", ["Ne", "10", "a gas", "a noble gas"]),
        row("sodium", ["Na", "11", "a solid", "a metal"]),
        row("magnesium", ["Mg", "12", "a solid", "a metal"]),
        row("phosphorus", ["P", "15", "a solid", "a nonmetal"]),
        row("sulfur", ["S", "16", "a solid", "a nonmetal"]),
        row("chlorine", ["Cl", "17", "a gas", "a halogen"]),
        row("argon", ["Ar", "18", "a gas", "a noble gas"]),
        row("potassium", ["K", "19", "a solid", "a metal"]),
        row("calcium", ["Ca", "20", "a solid", "a metal"]),
        row("iron", ["Fe", "26", "a solid", "a metal"]),
        row("copper", ["Cu", "29", "a solid", "a metal"]),
        row("zinc", ["Zn", "30", "a solid", "a metal"]),
        row("bromine", ["Br", "35", "a liquid", "a halogen"]),
        row("silver", ["Ag", "47", "a solid", "a metal"]),
        row("iodine", ["I", "53", "a solid", "a halogen"]),
        row("gold", ["Au", "79", "a solid", "a metal"]),
        row("lead", ["Pb", "82", "a solid", "a metal"]),
    ],
    not_false: NOT_FALSE,
};

const NOT_FALSE: &[NotFalse] = &[
    not_false("helium", "kind", &["a nonmetal"]),
    not_false("neon", "kind", &["a nonmetal"]),
    not_false("argon", "kind", &["a nonmetal"]),
    not_false("fluorine", "kind", &["a nonmetal"]),
    not_false("chlorine", "kind", &["a nonmetal"]),
    not_false("bromine", "kind", &["a nonmetal"]),
    not_false("iodine", "kind", &["a nonmetal"]),
];
