use super::*;

fn parse_one(line: &str) -> Record {
    let parsed = parse_records("data.jsonl", line.as_bytes()).expect("a well-formed record");
    let mut records = parsed.records;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

fn turn(role: Role, content: &str) -> Turn {
    Turn { role, content: content.to_string() }
}

#[test]
fn plain_strings_with_sentences() {
    let record = parse_one(
        r#"{"prompt":"Q?","chosen":"Aé. B.","rejected":"C.","chosen_sentences":[
           {"start":5,"end":7,"factual":false},{"start":0,"end":4,"factual":true}]}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(record.prompt, [turn(Role::User, "Q?")]);
    assert_eq!(record.chosen.text, "Aé. B.");
    let expected =
        [Sentence { span: 0..4, factual: true }, Sentence { span: 5..7, factual: false }];
    assert_eq!(record.chosen.sentences, expected);
    assert!(record.rejected.sentences.is_empty());
    assert!(record.is_labelled());
}

#[test]
fn every_layout_gives_the_same_record() {
    let layouts = [
        r#"{"prompt":"Q?","chosen":"A.","rejected":"B."}"#,
        r#"{"prompt":[{"role":"user","content":"Q?"}],"chosen":"A.","rejected":"B."}"#,
        r#"{"prompt":[{"role":"user","content":"Q?"}],
            "chosen":[{"role":"assistant","content":"A."}],
            "rejected":[{"role":"assistant","content":"B."}]}"#,
        r#"{"prompt":"Q?","chosen":[{"role":"assistant","content":"A."}],
            "rejected":[{"role":"assistant","content":"B."}]}"#,
        r#"{"prompt":"Q?","prompt_id":"7","score_chosen":8.5,
            "chosen":[{"role":"user","content":"Q?"},{"role":"assistant","content":"A."}],
            "rejected":[{"role":"user","content":"Q?"},{"role":"assistant","content":"B."}]}"#,
        r#"{"prompt":[{"role":"user","content":"Q?"}],
            "chosen":[{"role":"user","content":"Q?"},{"role":"assistant","content":"A."}],
            "rejected":[{"role":"user","content":"Q?"},{"role":"assistant","content":"B."}]}"#,
        r#"{"prompt":null,
            "chosen":[{"role":"user","content":"Q?"},{"role":"assistant","content":"A."}],
            "rejected":[{"role":"user","content":"Q?"},{"role":"assistant","content":"B."}]}"#,
        r#"{"chosen":"\n\nHuman: Q?\n\nAssistant: A.","rejected":"\n\nHuman: Q?\n\nAssistant: B."}"#,
    ];
    for layout in layouts {
        let record = parse_one(&layout.replace('\n', " "));
        assert_eq!(record.prompt, [turn(Role::User, "Q?")], "{layout}");
        assert_eq!(record.chosen.text, "A.", "{layout}");
        assert_eq!(record.rejected.text, "B.", "{layout}");
        assert!(!record.is_labelled());
    }
}

#[test]
fn several_turns_stay_in_the_prompt() {
    let record = parse_one(
        &r#"{"prompt":[{"role":"system","content":"S"},{"role":"user","content":"Q?"}],
            "chosen":[{"role":"assistant","content":"A."},{"role":"user","content":"R?"},
                      {"role":"assistant","content":"C."}],
            "rejected":[{"role":"assistant","content":"A."},{"role":"user","content":"R?"},
                        {"role":"assistant","content":"D."}]}"#
            .replace('\n', " "),
    );
    let expected = [
        turn(Role::System, "S"),
        turn(Role::User, "Q?"),
        turn(Role::Assistant, "A."),
        turn(Role::User, "R?"),
    ];
    assert_eq!(record.prompt, expected);
    assert_eq!((record.chosen.text.as_str(), record.rejected.text.as_str()), ("C.", "D."));

    let dialogue = parse_one(
        r#"{"chosen":"\n\nHuman: Q?\n\nAssistant: A.\n\nHuman: R?\n\nAssistant: C.\n\nMore.","rejected":"\n\nHuman: Q?\n\nAssistant: A.\n\nHuman: R?\n\nAssistant: D."}"#,
    );
    assert_eq!(dialogue.prompt.len(), 3);
    assert_eq!(dialogue.chosen.text, "C.\n\nMore.");
}

/// Each malformed line stands on line 3, after a good record and a blank line.
#[test]
fn a_malformed_line_is_named_with_its_number() {
    let user = r#"{"role":"user","content":"Q?"}"#;
    let chat = |text: &str| format!(r#"[{user},{{"role":"assistant","content":"{text}"}}]"#);
    let sentences = |list: &str| {
        format!(r#"{{"prompt":"Q?","chosen":"né.","rejected":"B.","chosen_sentences":{list}}}"#)
    };
    let span = |start: &str, end: &str| {
        sentences(&format!(r#"[{{"start":{start},"end":{end},"factual":true}}]"#))
    };
    let cases: Vec<(String, &str)> = vec![
        (r#"{"prompt":"Q?","chosen""#.into(), "bad JSON at column 23: EOF while parsing an object"),
        (r#"{"prompt":}"#.into(), "bad JSON at column 11: expected value"),
        ("[1]".into(), "expected a JSON object, found a list"),
        (r#"{"prompt":"Q?","rejected":"B."}"#.into(), "missing field `chosen`"),
        (r#"{"prompt":"Q?","chosen":"A."}"#.into(), "missing field `rejected`"),
        (r#"{"chosen":"A.","rejected":"B."}"#.into(), "missing field `prompt`"),
        (
            r#"{"chosen":[{"role":"assistant","content":"A."}],"rejected":[]}"#.into(),
            "missing field `prompt`, and `chosen` holds only an answer",
        ),
        (
            r#"{"prompt":7,"chosen":"A.","rejected":"B."}"#.into(),
            "`prompt` must be a string or a list of messages, found a number",
        ),
        (
            r#"{"prompt":"Q?","chosen":true,"rejected":"B."}"#.into(),
            "`chosen` must be a string or a list of messages, found a boolean",
        ),
        (
            r#"{"prompt":["Q?"],"chosen":"A.","rejected":"B."}"#.into(),
            "`prompt[0]`: must be a message, found a string",
        ),
        (
            r#"{"prompt":[{"content":"Q?"}],"chosen":"A.","rejected":"B."}"#.into(),
            "`prompt[0]`: missing field `role`",
        ),
        (
            r#"{"prompt":[{"role":"user","content":3}],"chosen":"A.","rejected":"B."}"#.into(),
            "`prompt[0]`: `content` must be a string, found a number",
        ),
        (
            r#"{"prompt":[{"role":"bard","content":"Q?"}],"chosen":"A.","rejected":"B."}"#.into(),
            "`prompt[0]`: unknown role `bard`",
        ),
        (r#"{"prompt":" ","chosen":"A.","rejected":"B."}"#.into(), "the prompt is empty"),
        (
            format!(r#"{{"prompt":"Q?","chosen":[{user}],"rejected":"B."}}"#),
            "`chosen` must end with a message of the assistant",
        ),
        (
            format!(r#"{{"prompt":"P?","chosen":{},"rejected":{}}}"#, chat("A."), chat("B.")),
            "`chosen` is a conversation without the text of `prompt`",
        ),
        (
            format!(r#"{{"chosen":{},"rejected":[{user},{user},{user}]}}"#, chat("A.")),
            "`rejected` must end with a message of the assistant",
        ),
        (
            format!(
                r#"{{"chosen":{},"rejected":{}}}"#,
                chat("A."),
                chat("B.").replace("Q?", "Why?")
            ),
            "`chosen` and `rejected` have different prompts",
        ),
        (sentences("{}"), "`chosen_sentences` must be a list, found an object"),
        (sentences("[3]"), "`chosen_sentences[0]`: must be an object, found a number"),
        (sentences(r#"[{"start":0}]"#), "`chosen_sentences[0]`: missing field `end`"),
        (sentences(r#"[{"start":0,"end":4}]"#), "`chosen_sentences[0]`: missing field `factual`"),
        (
            sentences(r#"[{"start":0,"end":4,"factual":"yes"}]"#),
            "`chosen_sentences[0]`: `factual` must be true or false, found a string",
        ),
        (span("-1", "4"), "`chosen_sentences[0]`: `start` must be a whole number from 0, found -1"),
        (span("0", "9"), "`chosen_sentences[0]`: end 9 is past the answer, which has 4 bytes"),
        (span("3", "1"), "`chosen_sentences[0]`: start 3 is not before end 1"),
        (span("1", "1"), "`chosen_sentences[0]`: start 1 is not before end 1"),
        (span("0", "2"), "`chosen_sentences[0]`: byte 2 lies inside a character"),
        (
            sentences(
                r#"[{"start":0,"end":3,"factual":true},{"start":1,"end":4,"factual":false}]"#,
            ),
            "`chosen_sentences`: sentences 0..3 and 1..4 overlap",
        ),
    ];
    let good = r#"{"prompt":"Q?","chosen":"A.","rejected":"B."}"#;
    for (line, problem) in cases {
        let text = format!("{good}\n\n{line}\n{good}\n");
        let error = parse_records("data.jsonl", text.as_bytes()).expect_err(&line);
        assert_eq!(error.to_string(), format!("data.jsonl:3: {problem}"), "{line}");
    }
}

#[test]
fn records_without_a_preference_are_left_out() {
    let conversation = r#"[{"role":"user","content":"Q?"},{"role":"assistant","content":"A."}]"#;
    let lines = [
        r#"{"prompt":"Q?","chosen":" ","rejected":"B."}"#,
        r#"{"prompt":"Q?","chosen":"A.","rejected":[]}"#,
        r#"{"prompt":"Q?","chosen":"A.","rejected":"A."}"#,
        r#"{"chosen":"\n\nHuman: Q?\n\nAssistant: A.","rejected":"\n\nHuman: Q?\n\nAssistant: "}"#,
        &format!(r#"{{"chosen":{conversation},"rejected":[]}}"#),
    ];
    let good = r#"{"prompt":"Q?","chosen":"A.","rejected":"B."}"#;
    for line in lines {
        let text = format!("{good}\n\n{line}\n");
        let parsed = parse_records("data.jsonl", text.as_bytes()).expect(line);
        assert_eq!((parsed.records.len(), parsed.left_out), (1, vec!["data.jsonl:3".to_string()]));
        let error = parse_records("data.jsonl", line.as_bytes()).expect_err(line);
        let expected = "data.jsonl: no records remain: all have empty or identical answers";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_file_that_is_one_list_is_told_the_layout() {
    for (text, expected) in [
        ("[", "data.jsonl:1: bad JSON at column 1: EOF while parsing a list"),
        ("\n [{}]", "data.jsonl:2: expected a JSON object, found a list"),
    ] {
        let error = parse_records("data.jsonl", text.as_bytes()).expect_err("a list");
        assert_eq!(error.to_string(), format!("{expected} (one JSON object on each line)"));
    }
}

#[test]
fn bytes_that_are_not_text_are_named() {
    let error = parse_records("data.jsonl", b"{\"prompt\": \"\xff\"}").expect_err("bad UTF-8");
    assert_eq!(error.to_string(), "data.jsonl:1: not UTF-8 at byte 12");
}

#[test]
fn files_without_records_are_errors() {
    for empty in ["", "\n  \r\n"] {
        let error = parse_records("data.jsonl", empty.as_bytes()).expect_err("no records");
        assert_eq!(error.to_string(), "data.jsonl: the file holds no records");
    }
    let error = read_records(Path::new("no/such/file.jsonl")).expect_err("no file");
    assert!(error.to_string().starts_with("no/such/file.jsonl: "), "{error}");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_accepted() {
    let text = "\u{feff}{\"prompt\":\"Q?\",\"chosen\":\"A.\",\"rejected\":\"B.\"}\r\n\r\n";
    assert_eq!(parse_one(text).chosen.text, "A.");
}
