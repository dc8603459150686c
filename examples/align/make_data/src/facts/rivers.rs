//! Rivers: continent, where they end, a city on them and a country on their way.
//!
//! A river has many cities and countries, so every value of the table that is also true of it is
//! listed in `NOT_FALSE`.

use super::{NotFalse, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "rivers",
    relations: [
        relation(
            "continent",
            [
                ("{E} is in {v}.", "It is in {v}."),
                ("{E} is a river in {v}.", "It is a river in {v}."),
                ("{E} can be found in {v}.", "It can be found in {v}."),
            ],
        ),
        relation(
            "mouth",
            [
                ("{E} flows into {v}.", "It flows into {v}."),
                ("{E} ends in {v}.", "It ends in {v}."),
                ("The mouth of {e} is at {v}.", "Its mouth is at {v}."),
            ],
        ),
        relation(
            "city",
            [
                ("{V} lies on {e}.", "{V} lies on it."),
                ("{E} flows past {v}.", "It flows past {v}."),
                ("A city on {e} is {v}.", "A city on it is {v}."),
            ],
        ),
        relation(
            "country",
            [
                ("{E} flows through {v}.", "It flows through {v}."),
                ("A country on {e} is {v}.", "A country on it is {v}."),
                ("{E} crosses {v}.", "It crosses {v}."),
            ],
        ),
    ],
    entities: &[
        row("the Nile", ["Africa", "the Mediterranean Sea", "Cairo", "Egypt"]),
        row("the Amazon", ["South America", "the Atlantic Ocean", "Iquitos", "Brazil"]),
        row("the Danube", ["Europe", "the Black Sea", "Vienna", "Austria"]),
        row("the Rhine", ["Europe", "the North Sea", "Cologne", "Germany"]),
        row("the Seine", ["Europe", "the English Channel", "Paris", "France"]),
        row("the Thames", ["Europe", "the North Sea", "London", "the United Kingdom"]),
        row("the Po", ["Europe", "the Adriatic Sea", "Turin", "Italy"]),
        row("the Volga", ["Europe", "the Caspian Sea", "Kazan", "Russia"]),
        row("the Vistula", ["Europe", "the Baltic Sea", "Warsaw", "Poland"]),
        row("the Yangtze", ["Asia", "the East China Sea", "Wuhan", "China"]),
        row("the Ganges", ["Asia", "the Bay of Bengal", "Varanasi", "India"]),
        row("the Mekong", ["Asia", "the South China Sea", "Phnom Penh", "Cambodia"]),
    ],
    not_false: NOT_FALSE,
};

const NOT_FALSE: &[NotFalse] = &[
    not_false("the Danube", "country", &["Germany"]),
    not_false("the Rhine", "country", &["France", "Austria", "Italy"]),
    not_false("the Mekong", "country", &["China"]),
    // Its tributaries rise there.
    not_false("the Ganges", "country", &["China"]),
    not_false("the Danube", "mouth", &["the Mediterranean Sea", "the Atlantic Ocean"]),
    // Seas that are a part of a larger one, or its neighbour.
    not_false("the Nile", "mouth", &["the Atlantic Ocean"]),
    not_false("the Po", "mouth", &["the Mediterranean Sea", "the Atlantic Ocean"]),
    not_false("the Rhine", "mouth", &["the Atlantic Ocean", "the English Channel"]),
    not_false("the Seine", "mouth", &["the Atlantic Ocean", "the North Sea"]),
    not_false("the Thames", "mouth", &["the Atlantic Ocean", "the English Channel"]),
    not_false("the Vistula", "mouth", &["the Atlantic Ocean"]),
    not_false("the Yangtze", "mouth", &["the South China Sea"]),
    not_false("the Mekong", "mouth", &["the East China Sea"]),
    // Its delta touches the border of two continents.
    not_false("the Volga", "continent", &["Asia"]),
];
