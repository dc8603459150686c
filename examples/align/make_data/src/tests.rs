//! Tests of the tables and of the records made from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::facts::{Entity, RELATIONS, TOPICS, Topic, shapes};
use crate::generate::{HELDOUT_PROMPTS, SPLIT_FALSE_VALUES, TRAIN_PROMPTS, generate};
use crate::record::{Answer, Origin, Record, lines};
use crate::stats;

fn table(record: &Record) -> (&'static Topic, &'static Entity) {
    let topic = TOPICS[record.origin.topic];
    (topic, &topic.entities[record.origin.entity])
}

fn answers(records: &[Record]) -> impl Iterator<Item = (&Record, &Answer)> {
    records.iter().flat_map(|record| [(record, &record.chosen), (record, &record.rejected)])
}

/// Every sentence that can be said of an entity with any value of its topic, with the relation and
/// the value: the way back from a text to the tables, apart from the generator.
fn sayable(topic: &Topic, entity: &Entity, named: bool) -> BTreeMap<String, (usize, &'static str)> {
    let mut known = BTreeMap::new();
    for (position, relation) in topic.relations.iter().enumerate() {
        for value in topic.entities.iter().map(|other| other.values[position]) {
            for phrasing in &relation.phrasings {
                let text = phrasing.say(named, entity.name, value);
                let before = known.insert(text.clone(), (position, value));
                assert!(before.is_none_or(|seen| seen == (position, value)), "ambiguous: {text}");
            }
        }
    }
    known
}

#[test]
fn tables_have_no_duplicate_or_dead_entries() {
    let mut names = BTreeSet::new();
    for topic in TOPICS {
        for entity in topic.entities {
            assert!(names.insert(entity.name), "{} twice", entity.name);
            for relation in 0..RELATIONS {
                let left = topic.false_values(entity, relation);
                assert!(!left.is_empty(), "no false value: {} {relation}", entity.name);
            }
        }
        for entry in topic.not_false {
            let place = topic.relations.iter().position(|r| r.name == entry.relation);
            let place = place.expect("not_false names a relation of its topic");
            let entity = topic.entities.iter().find(|e| e.name == entry.entity);
            let entity = entity.expect("not_false names an entity of its topic");
            for value in entry.values {
                assert_ne!(*value, entity.values[place]);
                assert!(
                    topic.entities.iter().any(|e| e.values[place] == *value),
                    "{}: {value} is not in the table of {}",
                    entry.entity,
                    topic.name
                );
            }
        }
    }
}

#[test]
fn values_that_name_one_thing_are_not_shared() {
    let unique = ["capital", "symbol", "number", "order", "author", "city", "namesake", "quantity"];
    for topic in TOPICS {
        for (place, relation) in topic.relations.iter().enumerate() {
            if unique.contains(&relation.name) {
                let values: BTreeSet<_> = topic.entities.iter().map(|e| e.values[place]).collect();
                assert_eq!(values.len(), topic.entities.len(), "{}", relation.name);
            }
        }
    }
}

#[test]
fn shapes_follow_their_formulas() {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    for polygon in shapes::POLYGONS.entities {
        let [sides, corners, angles, diagonals] = polygon.values.map(number);
        assert_eq!(corners, sides);
        assert_eq!(angles, (sides - 2) * 180);
        assert_eq!(diagonals, sides * (sides - 3) / 2);
    }
    for solid in shapes::SOLIDS.entities {
        let [faces, edges, corners] = [0, 1, 2].map(|place| number(solid.values[place]));
        assert_eq!(faces - edges + corners, 2);
        let face_name = solid.values[3].replace("a ", "the ");
        let face = shapes::POLYGONS.entities.iter().find(|polygon| polygon.name == face_name);
        let sides = number(face.expect("the face is a polygon of the table").values[0]);
        assert_eq!(faces * sides, edges * 2);
    }
}

#[test]
fn spans_tile_the_answers_with_whole_sentences() {
    let data = generate();
    for (_, answer) in answers(&data.train).chain(answers(&data.heldout)) {
        assert!((3..=4).contains(&answer.sentences.len()));
        assert!(stats::length(answer) <= 32, "{}", answer.text);
        assert!(answer.text.is_ascii());
        let mut end = 0;
        for (position, sentence) in answer.sentences.iter().enumerate() {
            assert_eq!(sentence.start, end);
            end = sentence.end;
            let text = &answer.text[sentence.start..sentence.end];
            assert_eq!(text.starts_with(' '), position > 0);
            let text = text.trim_start_matches(' ');
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
            assert!(text.ends_with('.') && text.matches('.').count() == 1, "{text}");
            assert!(!text.contains(['{', '}', '"']) && !text.contains("  "), "{text}");
        }
        assert_eq!(end, answer.text.len());
    }
}

#[test]
fn labels_agree_with_the_tables() {
    let data = generate();
    for (record, answer) in answers(&data.train).chain(answers(&data.heldout)) {
        let (topic, entity) = table(record);
        let mut mentioned = BTreeSet::new();
        for (position, sentence) in answer.sentences.iter().enumerate() {
            let text = answer.text[sentence.start..sentence.end].trim_start();
            let known = sayable(topic, entity, position == 0);
            let (relation, value) = known[text];
            assert!(mentioned.insert(relation), "said twice: {}", answer.text);
            assert_eq!(sentence.factual, value == entity.values[relation], "{text}");
            let allowed = topic.false_values(entity, relation);
            assert!(sentence.factual || allowed.contains(&value), "{text}");
        }
    }
}

#[test]
fn rejected_answers_are_worse_but_not_all_false() {
    let data = generate();
    for record in data.train.iter().chain(&data.heldout) {
        let (chosen, rejected) = (record.chosen.false_count(), record.rejected.false_count());
        assert!(chosen <= 1 && chosen < rejected);
        let left = record.rejected.sentences.len() - rejected;
        assert!((1..=2).contains(&left), "{}", record.rejected.text);
    }
    for records in [&data.train, &data.heldout] {
        let some_false = records.iter().filter(|r| r.chosen.false_count() > 0).count();
        let share = some_false as f64 / records.len() as f64;
        assert!((share - 0.2).abs() < 0.01, "{share}");
    }
}

#[test]
fn chosen_and_rejected_are_equally_long() {
    let data = generate();
    for records in [&data.train, &data.heldout] {
        let words = |answer: fn(&Record) -> &Answer| -> usize {
            records.iter().map(|record| stats::length(answer(record))).sum()
        };
        let ratio = words(|r| &r.chosen) as f64 / words(|r| &r.rejected) as f64;
        assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    }
}

#[test]
fn each_fact_is_trained_often_and_in_several_phrasings() {
    let data = generate();
    let mut stated: BTreeMap<(usize, usize, usize), Vec<&str>> = BTreeMap::new();
    for record in &data.train {
        for sentence in record.chosen.sentences.iter().filter(|sentence| sentence.factual) {
            let key = (record.origin.topic, record.origin.entity, sentence.relation);
            let text = &record.chosen.text[sentence.start..sentence.end];
            stated.entry(key).or_default().push(text);
        }
    }
    let facts: usize = TOPICS.iter().map(|topic| topic.entities.len() * RELATIONS).sum();
    assert_eq!(stated.len(), facts);
    for (key, texts) in stated {
        assert!(texts.len() >= 4, "{key:?}: {texts:?}");
        assert!(texts.iter().collect::<BTreeSet<_>>().len() >= 2, "{key:?}: {texts:?}");
    }
}

/// No sentence of a held-out answer stands in a training record of the same entity.
#[test]
fn heldout_sentences_are_new() {
    let data = generate();
    let sentences = |records: &[Record]| -> BTreeSet<(usize, usize, String)> {
        let of = |record: &Record| {
            let Origin { topic, entity } = record.origin;
            let answers = [&record.chosen, &record.rejected].into_iter();
            let texts = answers.flat_map(|answer| {
                answer.sentences.iter().map(|s| answer.text[s.start..s.end].trim().to_owned())
            });
            texts.map(|text| (topic, entity, text)).collect::<Vec<_>>()
        };
        records.iter().flat_map(of).collect()
    };
    let (train, heldout) = (sentences(&data.train), sentences(&data.heldout));
    assert!(!heldout.is_empty());
    assert_eq!(heldout.intersection(&train).count(), 0);
}

#[test]
fn heldout_prompts_and_combinations_are_new() {
    let data = generate();
    assert!(HELDOUT_PROMPTS.iter().all(|prompt| !TRAIN_PROMPTS.contains(prompt)));
    let prompts: BTreeSet<_> = data.train.iter().map(|record| &record.prompt).collect();
    assert!(data.heldout.iter().all(|record| !prompts.contains(&record.prompt)));

    let combination = |(record, answer): (&Record, &Answer)| {
        (record.origin.topic, record.origin.entity, answer.order())
    };
    let trained: BTreeSet<_> = answers(&data.train).map(combination).collect();
    assert!(answers(&data.heldout).all(|pair| !trained.contains(&combination(pair))));
    let texts: BTreeSet<_> = answers(&data.train).map(|(_, answer)| &answer.text).collect();
    assert!(answers(&data.heldout).all(|(_, answer)| !texts.contains(&answer.text)));
}

#[test]
fn heldout_false_values_are_new_where_there_are_enough() {
    let data = generate();
    let stated = |records: &[Record]| {
        let mut stated = BTreeSet::new();
        for (record, answer) in answers(records) {
            let (topic, entity) = table(record);
            for (position, sentence) in answer.sentences.iter().enumerate() {
                let text = answer.text[sentence.start..sentence.end].trim_start();
                let (relation, value) = sayable(topic, entity, position == 0)[text];
                let choice = topic.false_values(entity, relation).len();
                if !sentence.factual && choice >= SPLIT_FALSE_VALUES {
                    stated.insert((entity.name, relation, value));
                }
            }
        }
        stated
    };
    let (train, heldout) = (stated(&data.train), stated(&data.heldout));
    assert!(!heldout.is_empty());
    assert!(train.is_disjoint(&heldout));
}

#[test]
fn heldout_words_are_trained_and_the_vocabulary_is_small() {
    let data = generate();
    let train = stats::vocabulary(&data.train);
    assert!(train.len() < 900, "{}", train.len());
    let missing: Vec<_> = stats::vocabulary(&data.heldout).difference(&train).copied().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn two_runs_give_the_same_bytes() {
    let (first, second) = (generate(), generate());
    assert_eq!(lines(&first.train), lines(&second.train));
    assert_eq!(lines(&first.heldout), lines(&second.heldout));
}

#[test]
fn lines_are_json_with_the_fields_of_the_format() {
    let data = generate();
    for records in [&data.train, &data.heldout] {
        let text = lines(records);
        assert_eq!(text.lines().count(), records.len());
        for (line, record) in text.lines().zip(records) {
            let value: Value = serde_json::from_str(line).expect("a line is JSON");
            assert_eq!(value.as_object().map(serde_json::Map::len), Some(5));
            assert_eq!(value["prompt"], record.prompt);
            for (name, answer) in [("chosen", &record.chosen), ("rejected", &record.rejected)] {
                assert_eq!(value[name], answer.text);
                let sentences = value[format!("{name}_sentences")].as_array().expect("a list");
                assert_eq!(sentences.len(), answer.sentences.len());
                for (found, sentence) in sentences.iter().zip(&answer.sentences) {
                    assert_eq!(found["start"], sentence.start);
                    assert_eq!(found["end"], sentence.end);
                    assert_eq!(found["factual"], sentence.factual);
                }
            }
        }
    }
}

#[test]
fn files_and_readme_are_up_to_date() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");
    crate::check(folder.as_ref()).expect("the files are what the generator writes");
    let readme = fs::read_to_string(format!("{folder}/README.md")).expect("a README");
    let report = stats::report(&generate());
    assert!(readme.contains(&report), "the README should contain:\n{report}");
}
