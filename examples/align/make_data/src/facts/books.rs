//! Novels, plays and long poems: author, original language, century and form.

use super::{KIND_PHRASINGS, NotFalse, Topic, not_false, relation, row};

pub const TOPIC: Topic = Topic {
    name: "books",
    relations: [
        relation(
            "author",
            [
                ("{E} was written by {v}.", "It was written by {v}."),
                ("The author of {e} is {v}.", "Its author is {v}."),
                ("{V} wrote {e}.", "{V} wrote it."),
            ],
        ),
        relation(
            "language",
            [
                ("{E} was first written in {v}.", "It was first written in {v}."),
                ("The original language of {e} is {v}.", "Its original language is {v}."),
                ("{E} was written in the {v} language.", "It was written in the {v} language."),
            ],
        ),
        relation(
            "century",
            [
                ("{E} dates from {v}.", "It dates from {v}."),
                ("{E} comes from {v}.", "It comes from {v}."),
                ("{E} is a work of {v}.", "It is a work of {v}."),
            ],
        ),
        relation("form", KIND_PHRASINGS),
    ],
    entities: &[
        row("Pride and Prejudice", ["Jane Austen", "English", "the nineteenth century", "a novel"]),
        row("Frankenstein", ["Mary Shelley", "English", "the nineteenth century", "a novel"]),
        row("Moby Dick", ["Herman Melville", "English", "the nineteenth century", "a novel"]),
        row("Dracula", ["Bram Stoker", "English", "the nineteenth century", "a novel"]),
        row("Robinson Crusoe", ["Daniel Defoe", "English", "the eighteenth century", "a novel"]),
        row("The Hobbit", ["Tolkien", "English", "the twentieth century", "a novel"]),
        row("Macbeth", ["William Shakespeare", "English", "the seventeenth century", "a play"]),
        row("Paradise Lost", ["John Milton", "English", "the seventeenth century", "a poem"]),
        row(
            "Don Quixote",
            ["Miguel de Cervantes", "Spanish", "the seventeenth century", "a novel"],
        ),
        row("Tartuffe", ["Moliere", "French", "the seventeenth century", "a play"]),
        row("Madame Bovary", ["Gustave Flaubert", "French", "the nineteenth century", "a novel"]),
        row("War and Peace", ["Leo Tolstoy", "Russian", "the nineteenth century", "a novel"]),
        row("The Seagull", ["Anton Chekhov", "Russian", "the nineteenth century", "a play"]),
        row("The Divine Comedy", ["Dante", "Italian", "the fourteenth century", "a poem"]),
        row("The Trial", ["Franz Kafka", "German", "the twentieth century", "a novel"]),
    ],
    not_false: NOT_FALSE,
};

const NOT_FALSE: &[NotFalse] = &[
    // Stage versions have the same names.
    not_false("Dracula", "form", &["a play"]),
    not_false("Frankenstein", "form", &["a play"]),
    // Plays in verse.
    not_false("Macbeth", "form", &["a poem"]),
    not_false("Tartuffe", "form", &["a poem"]),
    // Whole passages are in French.
    not_false("War and Peace", "language", &["French"]),
];
