//! The tables of facts: for each topic four relations, and for each entity one true value of each.

mod animals;
mod books;
mod countries;
mod elements;
mod planets;
mod rivers;
pub mod shapes;
mod units;

/// Relations of every topic, and so values of every entity.
pub const RELATIONS: usize = 4;

/// Ways to say each relation.
pub const PHRASINGS: usize = 3;

/// Every topic, in the order in which records are made.
pub const TOPICS: [&Topic; 9] = [
    &countries::TOPIC,
    &elements::TOPIC,
    &planets::TOPIC,
    &books::TOPIC,
    &rivers::TOPIC,
    &animals::TOPIC,
    &units::TOPIC,
    &shapes::POLYGONS,
    &shapes::SOLIDS,
];

/// A kind of thing, what can be said about it, and the things themselves.
pub struct Topic {
    /// Name of the topic, for messages.
    pub name: &'static str,
    /// What can be said about each entity.
    pub relations: [Relation; RELATIONS],
    /// The entities, with their values in the order of `relations`.
    pub entities: &'static [Entity],
    /// Values of the table that must never be stated as false.
    pub not_false: &'static [NotFalse],
}

/// One thing that can be said about an entity.
pub struct Relation {
    /// Name of the relation, for `not_false` and for messages.
    pub name: &'static str,
    /// Ways to say it.
    pub phrasings: [Phrasing; PHRASINGS],
}

/// One way to say a relation. `{e}` stands for the entity and `{v}` for the value; `{E}` and `{V}`
/// are the same with a capital letter.
pub struct Phrasing {
    /// The first sentence of an answer, which names the entity.
    pub named: &'static str,
    /// A later sentence, which says "it" or "its".
    pub short: &'static str,
}

/// One thing and its true values.
pub struct Entity {
    /// Name, as it stands inside a sentence.
    pub name: &'static str,
    /// The true value of each relation.
    pub values: [&'static str; RELATIONS],
}

/// Values that the table does not list for an entity but that are also true of it, partly true, or
/// open to argument. They are never drawn as false values.
pub struct NotFalse {
    /// Name of the entity.
    pub entity: &'static str,
    /// Name of the relation.
    pub relation: &'static str,
    /// The values to leave out.
    pub values: &'static [&'static str],
}

const fn relation(name: &'static str, phrasings: [(&'static str, &'static str); 3]) -> Relation {
    let [first, second, third] = phrasings;
    Relation { name, phrasings: [phrasing(first), phrasing(second), phrasing(third)] }
}

const fn phrasing((named, short): (&'static str, &'static str)) -> Phrasing {
    Phrasing { named, short }
}

/// Phrasings shared by the relations that say what an entity is.
const KIND_PHRASINGS: [(&str, &str); 3] = [
    ("{E} is {v}.", "It is {v}."),
    ("{E} is classed as {v}.", "It is classed as {v}."),
    ("{E} counts as {v}.", "It counts as {v}."),
];

const fn row(name: &'static str, values: [&'static str; RELATIONS]) -> Entity {
    Entity { name, values }
}

const fn not_false(
    entity: &'static str,
    relation: &'static str,
    values: &'static [&'static str],
) -> NotFalse {
    NotFalse { entity, relation, values }
}

impl Topic {
    /// The values that are false of an entity: those of the other entities, each once and in table
    /// order, without the entity's own value and without what `not_false` lists.
    pub fn false_values(&self, entity: &Entity, relation: usize) -> Vec<&'static str> {
        let mut values = Vec::new();
        for other in self.entities {
            let value = other.values[relation];
            if value != entity.values[relation]
                && !values.contains(&value)
                && !self.is_left_out(entity, relation, value)
            {
                values.push(value);
            }
        }
        values
    }

    fn is_left_out(&self, entity: &Entity, relation: usize, value: &str) -> bool {
        self.not_false.iter().any(|entry| {
            entry.entity == entity.name
                && entry.relation == self.relations[relation].name
                && entry.values.contains(&value)
        })
    }
}

impl Phrasing {
    /// The sentence that states `value` of `entity`, with the entity's name if `named`.
    pub fn say(&self, named: bool, entity: &str, value: &str) -> String {
        let template = if named { self.named } else { self.short };
        template
            .replace("{e}", entity)
            .replace("{E}", &capitalised(entity))
            .replace("{v}", value)
            .replace("{V}", &capitalised(value))
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}
