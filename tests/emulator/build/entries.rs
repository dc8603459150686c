//! Finds the entry points of a `.cu` file in its preprocessed text.

/// An `extern "C" __global__` function.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The first argument of `__launch_bounds__`, or 0.
    pub max_threads: String,
}

impl Entry {
    /// The line of C++ that registers it.
    pub fn registration(&self) -> String {
        format!("EMULATOR_KERNEL({}, {})\n", self.name, self.max_threads)
    }
}

/// Every definition after `__global__`; declarations are passed over.
///
/// # Errors
/// A `__global__` function without `extern "C"`, which nobody could launch by name, and text that is
/// no function.
pub fn find(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for (position, _) in text.match_indices("__global__") {
        let before = text[..position].trim_end();
        let after = &text[position + "__global__".len()..];
        if before.ends_with(|c: char| c == '_' || c.is_alphanumeric() || c == '#') {
            return Err(format!("{}: expected `extern \"C\" __global__`", excerpt(after)));
        }
        if !before.ends_with("extern \"C\"") {
            return Err(format!("{}: an entry point without extern \"C\"", excerpt(after)));
        }
        let (after, max_threads) = take_launch_bounds(after)?;
        let open = after.find('(').ok_or_else(|| format!("{}: no function", excerpt(&after)))?;
        let mut name = after[..open].split(|c: char| c != '_' && !c.is_alphanumeric());
        let name = name.rfind(|word| !word.is_empty()).unwrap_or_default().to_owned();
        let (_, rest) = split_parentheses(&after[open..])?;
        if rest.trim_start().starts_with('{') {
            entries.push(Entry { name, max_threads });
        }
    }
    Ok(entries)
}

/// Takes `__launch_bounds__(...)` out of a function's head.
fn take_launch_bounds(head: &str) -> Result<(String, String), String> {
    let bounds = "__launch_bounds__";
    let Some(start) = head.find(bounds).filter(|start| {
        let brace = head.find('{').unwrap_or(head.len());
        *start < brace
    }) else {
        return Ok((head.to_owned(), "0".to_owned()));
    };
    let arguments = head[start + bounds.len()..].trim_start();
    let (inside, rest) = split_parentheses(arguments)?;
    Ok((format!("{}{rest}", &head[..start]), first_argument(inside).trim().to_owned()))
}

/// What is inside the parentheses that the text starts with, and what follows them.
fn split_parentheses(text: &str) -> Result<(&str, &str), String> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if i == 0 {
                Err(format!("{}: expected `(`", excerpt(text)))
            } else {
                Ok((&text[1..i], &text[i + 1..]))
            };
        }
    }
    Err(format!("{}: no closing `)`", excerpt(text)))
}

fn first_argument(arguments: &str) -> &str {
    let mut depth = 0;
    let end = arguments.find(|c: char| {
        match c {
            '(' | '<' | '{' => depth += 1,
            ')' | '>' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    &arguments[..end.unwrap_or(arguments.len())]
}

fn excerpt(text: &str) -> String {
    text.split_whitespace().take(8).collect::<Vec<_>>().join(" ")
}
