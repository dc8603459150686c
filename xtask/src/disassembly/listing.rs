//! The text of nvdisasm, as functions of instructions.

use std::collections::HashMap;
use std::rc::Rc;

/// A kernel's machine code.
#[derive(Default)]
pub struct Function {
    pub name: String,
    pub code: Vec<Instruction>,
    /// Index of the instruction that each label stands before.
    pub labels: HashMap<String, usize>,
}

/// One instruction: `@!P0 BRA.U UP1, label`.
pub struct Instruction {
    /// It stands under a predicate, so that it may do nothing.
    pub predicated: bool,
    /// With its modifiers: `LDG.E.128`.
    pub opcode: String,
    pub operands: String,
    /// The label among the operands.
    pub label: Option<String>,
    /// File and line of the source, empty where they are not known.
    pub source: Rc<str>,
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Following,
    Branch,
    Either,
    Nowhere,
}

impl Instruction {
    fn new(text: &str, source: &Rc<str>) -> Self {
        let text = text.trim();
        let (predicated, text) = match text.strip_prefix('@') {
            Some(rest) => (true, rest.split_once(' ').map_or("", |(_, rest)| rest)),
            None => (false, text),
        };
        let (opcode, operands) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let label = operands.split_once("`(").and_then(|(_, rest)| rest.split_once(')'));
        Self {
            predicated,
            opcode: opcode.to_owned(),
            operands: operands.trim().to_owned(),
            label: label.map(|(label, _)| label.to_owned()),
            source: Rc::clone(source),
        }
    }

    /// The opcode without its modifiers.
    pub fn class(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether the opcode has a modifier.
    pub fn is(&self, modifier: &str) -> bool {
        self.opcode.split('.').skip(1).any(|part| part == modifier)
    }

    /// A uniform branch has its condition among the operands. A call comes back.
    pub fn next(&self) -> Next {
        match self.class() {
            "BRA" if self.predicated || !self.operands.starts_with('`') => Next::Either,
            "BRA" => Next::Branch,
            "EXIT" | "RET" | "BRX" | "JMX" | "JMP" | "KILL" if !self.predicated => Next::Nowhere,
            _ => Next::Following,
        }
    }

    /// Bytes that a load or store moves for each thread.
    pub fn width(&self) -> u32 {
        let widths =
            [("256", 32), ("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)];
        widths.iter().find(|(modifier, _)| self.is(modifier)).map_or(4, |&(_, bytes)| bytes)
    }
}

/// The functions of a listing made with `nvdisasm -c -g`.
pub fn parse(text: &str) -> Vec<Function> {
    let mut functions: Vec<Function> = Vec::new();
    let mut source = Rc::from("");
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix(".section") {
            let name = section.trim().strip_prefix(".text.").and_then(|rest| rest.split_once(','));
            if let Some((name, _)) = name {
                functions.push(Function { name: name.to_owned(), ..Function::default() });
            }
        } else if let Some(place) = line.strip_prefix("//## File") {
            source = file_and_line(place).unwrap_or_else(|| Rc::from(""));
        } else if let Some(function) = functions.last_mut() {
            if let Some(label) = line.strip_suffix(':') {
                function.labels.insert(label.to_owned(), function.code.len());
            } else if let Some((_, instruction)) =
                line.strip_prefix("/*").and_then(|rest| rest.split_once("*/"))
            {
                // Without -hex there is one comment, the offset.
                let instruction = instruction.split(';').next().unwrap_or_default();
                function.code.push(Instruction::new(instruction, &source));
            }
        }
    }
    functions
}

/// `a.cu:12` of `"/folder/a.cu", line 12` and what may come after.
fn file_and_line(place: &str) -> Option<Rc<str>> {
    let (path, rest) = place.trim().strip_prefix('"')?.split_once("\", line ")?;
    let file = path.rsplit('/').next()?;
    let line = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(format!("{file}:{line}").into())
}

#[cfg(test)]
mod tests {
    use super::{Instruction, Next, parse};

    #[test]
    fn branches_are_understood() {
        let next = |text| Instruction::new(text, &"".into()).next();
        assert_eq!(next("BRA `(.L_x_1)"), Next::Branch);
        assert_eq!(next("@!P0 BRA `(.L_x_1)"), Next::Either);
        assert_eq!(next("BRA.U !UP0, `(.L_x_1)"), Next::Either);
        assert_eq!(next("BRA.DIV UR4, `(.L_x_1)"), Next::Either);
        assert_eq!(next("@P0 EXIT"), Next::Following);
        assert_eq!(next("EXIT"), Next::Nowhere);
        assert_eq!(next("CALL.REL.NOINC `(f)"), Next::Following);
    }

    #[test]
    fn a_listing_is_understood() {
        let text = "\t.section\t.text.f,\"ax\",@progbits
f:
.text.f:
\t//## File \"/folder/a.cu\", line 7
        /*0000*/                   LDG.E.128.CONSTANT R4, desc[UR6][R4.64] ;
.L_x_1:
\t//## File \"b.cuh\", line 9 inlined at \"a.cu\", line 8
        /*0010*/              @!P1 BRA `(.L_x_1) ;
";
        let functions = parse(text);
        assert_eq!(functions.len(), 1);
        let function = &functions[0];
        assert_eq!(function.name, "f");
        let [load, branch] = &function.code[..] else { panic!("two instructions") };
        assert_eq!((load.class(), load.width(), &*load.source), ("LDG", 16, "a.cu:7"));
        assert_eq!((branch.label.as_deref(), &*branch.source), (Some(".L_x_1"), "b.cuh:9"));
        assert_eq!(function.labels[".L_x_1"], 1);
    }
}
