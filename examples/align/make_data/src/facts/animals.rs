//! Animals: class, number of legs, what covers the body, and whether they lay eggs.
//!
//! The legs of crabs and lobsters include the two with claws.

use super::{KIND_PHRASINGS, NotFalse, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "animals",
    relations: [
        relation("class", KIND_PHRASINGS),
        relation(
            "legs",
            [
                ("{E} has {v}.", "It has {v}."),
                ("The body of {e} has {v}.", "Its body has {v}."),
                ("{E} is an animal with {v}.", "It is an animal with {v}."),
            ],
        ),
        relation(
            "cover",
            [
                ("{E} is covered with {v}.", "It is covered with {v}."),
                ("The body of {e} is covered with {v}.", "Its body is covered with {v}."),
                ("The outside of {e} is made of {v}.", "Its outside is made of {v}."),
            ],
        ),
        relation(
            "birth",
            [
                ("{E} {v}.", "It {v}."),
                ("As a mother, {e} {v}.", "As a mother, it {v}."),
                ("To have young, {e} {v}.", "To have young, it {v}."),
            ],
        ),
    ],
    entities: &[
        row("the dog", ["a mammal", "four legs", "fur", BORN]),
        row("the lion", ["a mammal", "four legs", "fur", BORN]),
        row("the mouse", ["a mammal", "four legs", "fur", BORN]),
        row("the platypus", ["a mammal", "four legs", "fur", EGGS]),
        row("the whale", ["a mammal", "no legs", "bare skin", BORN]),
        row("the dolphin", ["a mammal", "no legs", "bare skin", BORN]),
        row("the eagle", ["a bird", "two legs", "feathers", EGGS]),
        row("the owl", ["a bird", "two legs", "feathers", EGGS]),
        row("the penguin", ["a bird", "two legs", "feathers", EGGS]),
        row("the ostrich", ["a bird", "two legs", "feathers", EGGS]),
        row("the crocodile", ["a reptile", "four legs", "scales", EGGS]),
        row("the tortoise", ["a reptile", "four legs", "a hard shell", EGGS]),
        row("the python", ["a reptile", "no legs", "scales", EGGS]),
        row("the frog", ["an amphibian", "four legs", "bare skin", EGGS]),
        row("the newt", ["an amphibian", "four legs", "bare skin", EGGS]),
        row("the salmon", ["a fish", "no legs", "scales", EGGS]),
        row("the trout", ["a fish", "no legs", "scales", EGGS]),
        row("the ant", ["an insect", "six legs", "an outer skeleton", EGGS]),
        row("the bee", ["an insect", "six legs", "an outer skeleton", EGGS]),
        row("the beetle", ["an insect", "six legs", "an outer skeleton", EGGS]),
        row("the spider", ["an arachnid", "eight legs", "an outer skeleton", EGGS]),
        row("the scorpion", ["an arachnid", "eight legs", "an outer skeleton", BORN]),
        row("the crab", ["a crustacean", "ten legs", "an outer skeleton", EGGS]),
        row("the lobster", ["a crustacean", "ten legs", "an outer skeleton", EGGS]),
    ],
    not_false: NOT_FALSE,
};

const BORN: &str = "gives birth to live young";
const EGGS: &str = "lays eggs";

const NOT_FALSE: &[NotFalse] = &[
    // Some beetles have scales, and some bear live young.
    not_false("the beetle", "cover", &["scales"]),
    // Birds descend from reptiles, and insects from crustaceans.
    not_false("the eagle", "class", &["a reptile"]),
    not_false("the owl", "class", &["a reptile"]),
    not_false("the penguin", "class", &["a reptile"]),
    not_false("the ostrich", "class", &["a reptile"]),
    not_false("the ant", "class", &["a crustacean"]),
    not_false("the bee", "class", &["a crustacean"]),
    not_false("the beetle", "class", &["a crustacean"]),
    // Limbs that may or may not be counted: spurs, feelers and claws.
    not_false("the python", "legs", &["two legs"]),
    not_false("the spider", "legs", &["ten legs"]),
    not_false("the scorpion", "legs", &["ten legs"]),
    not_false("the crab", "legs", &["eight legs"]),
    not_false("the lobster", "legs", &["eight legs"]),
    // A shell is skeleton, and an outer skeleton may be called a shell.
    not_false("the tortoise", "cover", &["an outer skeleton", "scales", "bare skin"]),
    // Bony plates under the scales.
    not_false("the crocodile", "cover", &["a hard shell", "an outer skeleton"]),
    // Insects and spiders have hairs.
    not_false("the ant", "cover", &["a hard shell", "fur"]),
    not_false("the bee", "cover", &["a hard shell", "fur"]),
    not_false("the beetle", "cover", &["a hard shell", "fur"]),
    not_false("the spider", "cover", &["a hard shell", "fur"]),
    not_false("the scorpion", "cover", &["a hard shell"]),
    not_false("the crab", "cover", &["a hard shell"]),
    not_false("the lobster", "cover", &["a hard shell"]),
];
