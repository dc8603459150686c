//! Makes the records from the tables.
//!
//! Each entity gets the same number of training and held-out records. An answer mentions all four
//! relations of its entity, or three of them, in some order; no order is used twice for an entity,
//! so the held-out answers are combinations that training does not show. Of the ways to say a
//! relation each entity keeps one for its held-out records, so their sentences are new too. The facts
//! in them are the trained ones.

use crate::facts::{Entity, PHRASINGS, RELATIONS, TOPICS, Topic};
use crate::record::{Answer, Origin, Record};
use crate::shuffle::Shuffler;

/// Training records of each entity.
pub const TRAIN_PER_ENTITY: usize = 8;

/// Held-out records of each entity.
pub const HELDOUT_PER_ENTITY: usize = 2;

/// One record in this many has a false sentence in the chosen answer.
pub const CHOSEN_FALSE_EVERY: usize = 5;

/// With at least this many false values, a fact keeps a third of them for the held-out records.
pub const SPLIT_FALSE_VALUES: usize = 4;

/// Prompts of the training records.
pub const TRAIN_PROMPTS: [&str; 6] = [
    "Tell me about {e}.",
    "What do you know about {e}?",
    "Give me some facts about {e}.",
    "Please tell me what you know about {e}.",
    "What can you say about {e}?",
    "Describe {e}.",
];

/// Prompts of the held-out records, in words of the training prompts.
pub const HELDOUT_PROMPTS: [&str; 4] = [
    "Tell me some facts about {e}.",
    "What can you tell me about {e}?",
    "Please say what you know about {e}.",
    "What facts do you know about {e}?",
];

/// The two files of records.
#[derive(Default)]
pub struct Data {
    /// Records to train on.
    pub train: Vec<Record>,
    /// Records to measure with.
    pub heldout: Vec<Record>,
}

/// Makes all records; the same ones on every call.
pub fn generate() -> Data {
    let mut data = Data::default();
    let mut serial = 0;
    for (topic, table) in TOPICS.iter().enumerate() {
        for entity in 0..table.entities.len() {
            let mut maker = Maker::new(table, Origin { topic, entity }, serial);
            for turn in 0..TRAIN_PER_ENTITY {
                let made = maker.record(Split::Train, turn, data.train.len());
                data.train.push(made);
            }
            for turn in 0..HELDOUT_PER_ENTITY {
                let made = maker.record(Split::Heldout, turn, data.heldout.len());
                data.heldout.push(made);
            }
            serial += 1;
        }
    }
    Shuffler::new(1).shuffle(&mut data.train);
    Shuffler::new(2).shuffle(&mut data.heldout);
    data
}

#[derive(Clone, Copy, PartialEq)]
enum Split {
    Train,
    Heldout,
}

/// Values to draw in turn.
#[derive(Default)]
struct Wheel {
    values: Vec<&'static str>,
    drawn: usize,
}

impl Wheel {
    fn draw(&mut self) -> &'static str {
        self.drawn += 1;
        self.values[(self.drawn - 1) % self.values.len()]
    }
}

/// Makes the records of one entity.
struct Maker {
    topic: &'static Topic,
    entity: &'static Entity,
    origin: Origin,
    serial: usize,
    shuffler: Shuffler,
    /// Orders of relations that no answer has used.
    orders: Vec<Vec<usize>>,
    /// False values of each relation for the training records.
    train: [Wheel; RELATIONS],
    /// False values of each relation for the held-out records.
    heldout: [Wheel; RELATIONS],
    /// How often each relation was stated, falsely and truly.
    stated: [[usize; 2]; RELATIONS],
}

impl Maker {
    fn new(topic: &'static Topic, origin: Origin, serial: usize) -> Self {
        let entity = &topic.entities[origin.entity];
        let mut shuffler = Shuffler::new(3 + serial as u64);
        let mut orders = orders();
        shuffler.shuffle(&mut orders);
        let mut train: [Wheel; RELATIONS] = Default::default();
        let mut heldout: [Wheel; RELATIONS] = Default::default();
        for relation in 0..RELATIONS {
            let mut values = topic.false_values(entity, relation);
            shuffler.shuffle(&mut values);
            let kept = if values.len() >= SPLIT_FALSE_VALUES { values.len() / 3 } else { 0 };
            let later = values.split_off(values.len() - kept);
            heldout[relation].values = if kept > 0 { later } else { values.clone() };
            train[relation].values = values;
        }
        let stated = [[0; 2]; RELATIONS];
        Self { topic, entity, origin, serial, shuffler, orders, train, heldout, stated }
    }

    /// The `turn`-th record of this entity in `split`, which has `done` records so far.
    fn record(&mut self, split: Split, turn: usize, done: usize) -> Record {
        // All four pairs of a long and a short answer are equally common, and the relation that a
        // short chosen answer leaves out changes from record to record.
        let turn = if split == Split::Train { turn } else { TRAIN_PER_ENTITY + turn };
        let left_out = (turn % 2 == 1).then_some((self.serial + turn / 2) % RELATIONS);
        let chosen_order = self.take_order(|order| match left_out {
            Some(relation) => order.len() < RELATIONS && !order.contains(&relation),
            None => order.len() == RELATIONS,
        });
        let short = (self.serial + turn / 2) % 2 == 1;
        let rejected_order = self.take_order(|order| (order.len() < RELATIONS) == short);

        // Of the chosen answer at most one sentence is false; of the rejected one, all but one or
        // two, and always more than of the chosen one.
        let chosen_false = usize::from(done % CHOSEN_FALSE_EVERY == 2);
        let most = rejected_order.len() - 1;
        let rejected_false = (most - self.shuffler.below(2)).max(chosen_false + 1);

        let prompts: &[&str] =
            if split == Split::Train { &TRAIN_PROMPTS } else { &HELDOUT_PROMPTS };
        let prompt = prompts[(self.serial * 3 + turn) % prompts.len()];
        Record {
            prompt: prompt.replace("{e}", self.entity.name),
            chosen: self.answer(split, &chosen_order, chosen_false),
            rejected: self.answer(split, &rejected_order, rejected_false),
            origin: self.origin,
        }
    }

    fn take_order(&mut self, fits: impl Fn(&[usize]) -> bool) -> Vec<usize> {
        let found = self.orders.iter().position(|order| fits(order));
        self.orders.remove(found.expect("an entity has more orders than answers"))
    }

    fn answer(&mut self, split: Split, order: &[usize], false_count: usize) -> Answer {
        let mut factual: Vec<bool> = (0..order.len()).map(|place| place >= false_count).collect();
        self.shuffler.shuffle(&mut factual);
        let mut answer = Answer::default();
        for (place, (&relation, &factual)) in order.iter().zip(&factual).enumerate() {
            let value = match (factual, split) {
                (true, _) => self.entity.values[relation],
                (false, Split::Train) => self.train[relation].draw(),
                (false, Split::Heldout) => self.heldout[relation].draw(),
            };
            let stated = &mut self.stated[relation][usize::from(factual)];
            let reserved = (self.serial + relation) % PHRASINGS;
            let phrasing = match split {
                Split::Train => (reserved + 1 + *stated % (PHRASINGS - 1)) % PHRASINGS,
                Split::Heldout => reserved,
            };
            *stated += 1;
            let phrasing = &self.topic.relations[relation].phrasings[phrasing];
            answer.push(&phrasing.say(place == 0, self.entity.name, value), factual, relation);
        }
        answer
    }
}

/// Every order of all relations and of all but one.
fn orders() -> Vec<Vec<usize>> {
    let mut orders = Vec::new();
    for code in 0..RELATIONS.pow(RELATIONS as u32) {
        let digits = (0..RELATIONS as u32).map(|place| code / RELATIONS.pow(place) % RELATIONS);
        let order: Vec<usize> = digits.collect();
        if (0..RELATIONS).all(|relation| order.contains(&relation)) {
            orders.push(order[1..].to_vec());
            orders.push(order);
        }
    }
    orders
}
