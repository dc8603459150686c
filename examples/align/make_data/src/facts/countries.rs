//! Countries: where they are, their capitals, currencies and main languages.
//!
//! Left out on purpose: countries on two continents, those about to change capital or currency, and
//! those without one clear main language.

use super::{NotFalse, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "countries",
    relations: [
        relation(
            "continent",
            [
                ("{E} is in {v}.", "It is in {v}."),
                ("{E} lies in {v}.", "It lies in {v}."),
                ("{E} can be found in {v}.", "It can be found in {v}."),
            ],
        ),
        relation(
            "capital",
            [
                ("The capital of {e} is {v}.", "Its capital is {v}."),
                ("The capital city of {e} is {v}.", "Its capital city is {v}."),
                ("{V} is the capital of {e}.", "{V} is its capital."),
            ],
        ),
        relation(
            "currency",
            [
                ("The currency of {e} is {v}.", "Its currency is {v}."),
                ("The money of {e} is called {v}.", "Its money is called {v}."),
                ("{V} is the currency of {e}.", "{V} is its currency."),
            ],
        ),
        relation(
            "language",
            [
                ("The main language of {e} is {v}.", "Its main language is {v}."),
                ("The language used most in {e} is {v}.", "The language used most there is {v}."),
                ("{V} is the main language of {e}.", "{V} is its main language."),
            ],
        ),
    ],
    entities: &[
        row("France", ["Europe", "Paris", "the euro", "French"]),
        row("Germany", ["Europe", "Berlin", "the euro", "German"]),
        row("Italy", ["Europe", "Rome", "the euro", "Italian"]),
        row("Spain", ["Europe", "Madrid", "the euro", "Spanish"]),
        row("Portugal", ["Europe", "Lisbon", "the euro", "Portuguese"]),
        row("Greece", ["Europe", "Athens", "the euro", "Greek"]),
        row("Austria", ["Europe", "Vienna", "the euro", "German"]),
        row("the Netherlands", ["Europe", "Amsterdam", "the euro", "Dutch"]),
        row("Poland", ["Europe", "Warsaw", "the zloty", "Polish"]),
        row("Hungary", ["Europe", "Budapest", "the forint", "Hungarian"]),
        row("Sweden", ["Europe", "Stockholm", "the krona", "Swedish"]),
        row("Norway", ["Europe", "Oslo", "the krone", "Norwegian"]),
        row("the United Kingdom", ["Europe", "London", "the pound", "English"]),
        row("Japan", ["Asia", "Tokyo", "the yen", "Japanese"]),
        row("China", ["Asia", "Beijing", "the yuan", "Chinese"]),
        row("South Korea", ["Asia", "Seoul", "the won", "Korean"]),
        row("Thailand", ["Asia", "Bangkok", "the baht", "Thai"]),
        row("Vietnam", ["Asia", "Hanoi", "the dong", "Vietnamese"]),
        row("Mongolia", ["Asia", "Ulaanbaatar", "the tugrik", "Mongolian"]),
        row("Jordan", ["Asia", "Amman", "the dinar", "Arabic"]),
        row("Egypt", ["Africa", "Cairo", "the pound", "Arabic"]),
        row("Tunisia", ["Africa", "Tunis", "the dinar", "Arabic"]),
        row("Kenya", ["Africa", "Nairobi", "the shilling", "Swahili"]),
        row("Canada", ["North America", "Ottawa", "the dollar", "English"]),
        row("the United States", ["North America", "Washington", "the dollar", "English"]),
        row("Mexico", ["North America", "Mexico City", "the peso", "Spanish"]),
        row("Brazil", ["South America", "Brasilia", "the real", "Portuguese"]),
        row("Argentina", ["South America", "Buenos Aires", "the peso", "Spanish"]),
        row("Peru", ["South America", "Lima", "the sol", "Spanish"]),
        row("Australia", ["Oceania", "Canberra", "the dollar", "English"]),
    ],
    not_false: NOT_FALSE,
};

const NOT_FALSE: &[NotFalse] = &[
    // One word in two spellings.
    not_false("Sweden", "currency", &["the krone"]),
    not_false("Norway", "currency", &["the krona"]),
    // Sinai is in Asia.
    not_false("Egypt", "continent", &["Asia"]),
    // Islands and lands of the same country on another continent.
    not_false("France", "continent", &["South America", "North America", "Africa", "Oceania"]),
    not_false("Spain", "continent", &["Africa"]),
    not_false("Italy", "continent", &["Africa"]),
    not_false("Portugal", "continent", &["Africa", "North America"]),
    not_false("Greece", "continent", &["Asia"]),
    not_false("the Netherlands", "continent", &["North America", "South America"]),
    not_false("the United States", "continent", &["Oceania"]),
    // Second languages of wide use.
    not_false("Canada", "language", &["French"]),
    not_false("Kenya", "language", &["English"]),
    not_false("Tunisia", "language", &["French"]),
    not_false("the United States", "language", &["Spanish"]),
];
