//! The eight planets: order from the Sun, kind, moons and rings.

use super::{KIND_PHRASINGS, NotFalse, Topic, not_false, relation, row};

const HAS: [(&str, &str); 3] = [
    ("{E} has {v}.", "It has {v}."),
    ("Around {e} one finds {v}.", "Around it one finds {v}."),
    ("{E} is a planet with {v}.", "It is a planet with {v}."),
];

pub const TOPIC: Topic = Topic {
    name: "planets",
    relations: [
        relation(
            "order",
            [
                ("{E} is the {v} planet from the Sun.", "It is the {v} planet from the Sun."),
                ("{E} comes {v} in order from the Sun.", "It comes {v} in order from the Sun."),
                (
                    "In order from the Sun, {e} is the {v} planet.",
                    "In order from the Sun, it is the {v} planet.",
                ),
            ],
        ),
        relation("kind", KIND_PHRASINGS),
        relation("moons", HAS),
        relation("rings", HAS),
    ],
    entities: &[
        row("Mercury", ["first", "a rocky planet", "no moons", "no rings"]),
        row("Venus", ["second", "a rocky planet", "no moons", "no rings"]),
        row("Earth", ["third", "a rocky planet", "just one moon", "no rings"]),
        row("Mars", ["fourth", "a rocky planet", "just two moons", "no rings"]),
        row("Jupiter", ["fifth", "a gas giant", "many moons", "rings"]),
        row("Saturn", ["sixth", "a gas giant", "many moons", "rings"]),
        row("Uranus", ["seventh", "an ice giant", "many moons", "rings"]),
        row("Neptune", ["eighth", "an ice giant", "many moons", "rings"]),
    ],
    not_false: NOT_FALSE,
};

// An older wording calls all four outer planets gas giants.
const NOT_FALSE: &[NotFalse] = &[
    not_false("Uranus", "kind", &["a gas giant"]),
    not_false("Neptune", "kind", &["a gas giant"]),
];
