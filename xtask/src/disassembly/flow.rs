//! Basic blocks of a function, and its natural loops: a loop has one entrance, which dominates the
//! branch back to it. Blocks that ptxas moved out of line are found that way wherever they lie.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::count::Counts;
use super::listing::{Function, Next};

/// The blocks of a function that can be reached, numbered so that every block but the entrance of a
/// loop comes after those before it.
pub struct Flow {
    pub blocks: Vec<Block>,
    /// The closest block that every way to a block passes.
    dominators: Vec<usize>,
}

/// Instructions without a branch in or out between them.
pub struct Block {
    pub instructions: Range<usize>,
    successors: Vec<usize>,
    predecessors: Vec<usize>,
}

/// A natural loop.
pub struct Loop {
    pub entrance: usize,
    pub body: BTreeSet<usize>,
    latches: Vec<usize>,
}

impl Flow {
    pub fn new(function: &Function) -> Self {
        let (ranges, successors) = split(function);
        let order = reverse_postorder(&successors);
        let number: BTreeMap<usize, usize> =
            order.iter().enumerate().map(|(n, &b)| (b, n)).collect();
        let mut blocks: Vec<Block> = order
            .iter()
            .map(|&block| Block {
                instructions: ranges[block].clone(),
                successors: successors[block].iter().map(|successor| number[successor]).collect(),
                predecessors: Vec::new(),
            })
            .collect();
        for block in 0..blocks.len() {
            for successor in blocks[block].successors.clone() {
                blocks[successor].predecessors.push(block);
            }
        }
        let dominators = dominators(&blocks);
        Self { blocks, dominators }
    }

    fn dominates(&self, above: usize, mut block: usize) -> bool {
        while block > above {
            block = self.dominators[block];
        }
        block == above
    }

    /// Loops with the same entrance are one.
    pub fn loops(&self) -> Vec<Loop> {
        let mut latches = BTreeMap::<usize, Vec<usize>>::new();
        for (block, Block { successors, .. }) in self.blocks.iter().enumerate() {
            for &entrance in successors.iter().filter(|&&to| self.dominates(to, block)) {
                latches.entry(entrance).or_default().push(block);
            }
        }
        let found = latches.into_iter().map(|(entrance, latches)| {
            let mut body = BTreeSet::from([entrance]);
            let mut open = latches.clone();
            while let Some(block) = open.pop() {
                if body.insert(block) {
                    open.extend(&self.blocks[block].predecessors);
                }
            }
            Loop { entrance, body, latches }
        });
        found.collect()
    }

    /// The ways through a loop, from its entrance back to it: of those that take equally many
    /// exponentials and load the same data, the shortest. Inner loops whose blocks are in the body
    /// count once.
    pub fn paths(&self, of: &Loop, counts: &[Counts]) -> Vec<Counts> {
        // The ways to the end of each block of the loop, in order of their work.
        let mut ways = BTreeMap::<usize, Vec<Counts>>::new();
        for &block in &of.body {
            let before = self.blocks[block].predecessors.iter().filter(|&&from| from < block);
            let mut here: Vec<Counts> =
                before.filter_map(|from| ways.get(from)).flatten().copied().collect();
            if block == of.entrance {
                here = vec![Counts::default()];
            }
            // A block adds the same to all, so their order stays: merging what is sorted is all the work.
            here.sort_by_key(|way| (way.work(), way.total));
            here.dedup_by_key(|way| way.work());
            here.iter_mut().for_each(|way| *way = *way + counts[block]);
            ways.insert(block, here);
        }
        let ends = of.latches.iter().filter_map(|latch| ways.get(latch));
        ends.flatten().copied().collect()
    }
}

/// The blocks in order of their addresses, and which ones each leads to.
fn split(function: &Function) -> (Vec<Range<usize>>, Vec<Vec<usize>>) {
    let code = &function.code;
    let target = |index: usize| {
        let label = code[index].label.as_ref()?;
        function.labels.get(label).copied().filter(|&target| target < code.len())
    };
    let mut starts = BTreeSet::from([0]);
    for (index, instruction) in code.iter().enumerate() {
        if instruction.next() != Next::Following {
            starts.insert(index + 1);
        }
        if matches!(instruction.next(), Next::Branch | Next::Either) {
            starts.extend(target(index));
        }
    }
    let starts: Vec<usize> = starts.into_iter().filter(|&start| start < code.len()).collect();
    let block_at = |index: usize| starts.binary_search(&index).ok();
    let ends = starts.iter().skip(1).copied().chain([code.len()]);
    let ranges: Vec<Range<usize>> = starts.iter().zip(ends).map(|(&s, e)| s..e).collect();
    let successors = ranges.iter().map(|range| {
        let last = range.end - 1;
        let (branch, following) = (target(last).and_then(block_at), block_at(range.end));
        match code[last].next() {
            Next::Following => following.into_iter().collect(),
            Next::Branch => branch.into_iter().collect(),
            Next::Either => branch.into_iter().chain(following).collect(),
            Next::Nowhere => Vec::new(),
        }
    });
    let successors = successors.collect();
    (ranges, successors)
}

fn reverse_postorder(successors: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::from([0]);
    let mut open: Vec<(usize, usize)> = if successors.is_empty() { vec![] } else { vec![(0, 0)] };
    while let Some((block, next)) = open.last_mut() {
        if let Some(&successor) = successors[*block].get(*next) {
            *next += 1;
            if seen.insert(successor) {
                open.push((successor, 0));
            }
        } else {
            order.push(*block);
            open.pop();
        }
    }
    order.reverse();
    order
}

/// Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm".
fn dominators(blocks: &[Block]) -> Vec<usize> {
    let unknown = usize::MAX;
    let mut found = vec![unknown; blocks.len()];
    if let Some(first) = found.first_mut() {
        *first = 0;
    }
    loop {
        let mut changed = false;
        for block in 1..blocks.len() {
            let known = blocks[block].predecessors.iter().filter(|&&from| found[from] != unknown);
            let closest = known.copied().reduce(|mut a, mut b| {
                while a != b {
                    (a, b) = if a > b { (found[a], b) } else { (a, found[b]) };
                }
                a
            });
            if let Some(closest) = closest.filter(|&closest| closest != found[block]) {
                found[block] = closest;
                changed = true;
            }
        }
        if !changed {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::count::Counts;
    use super::super::listing::{Function, parse};
    use super::Flow;

    /// A loop of four exponentials, with a rare block behind the exit that takes a fifth one and
    /// jumps back into the loop's middle, and an inner loop without any.
    const TEXT: &str = "\t.section\t.text.f,\"ax\"
/*0000*/ MOV R0, RZ ;
.L_x_0:
/*0010*/ LDG.E.128 R4, desc[UR6][R4.64] ;
/*0020*/ @P0 BRA `(.L_x_2) ;
.L_x_1:
/*0030*/ MUFU.EX2 R4, R4 ;
/*0040*/ MUFU.EX2 R5, R5 ;
/*0050*/ MUFU.EX2 R6, R6 ;
/*0060*/ MUFU.EX2 R7, R7 ;
.L_x_3:
/*0070*/ IADD3 R0, R0, 0x1, RZ ;
/*0080*/ @P2 BRA `(.L_x_3) ;
/*0090*/ @P1 BRA `(.L_x_0) ;
/*00a0*/ EXIT ;
.L_x_2:
/*00b0*/ MUFU.EX2 R8, R8 ;
/*00c0*/ FMUL R9, R9, R8 ;
/*00d0*/ BRA `(.L_x_1) ;
.L_x_4:
/*00e0*/ BRA `(.L_x_4) ;
";

    fn function() -> Function {
        parse(TEXT).remove(0)
    }

    #[test]
    fn loops_are_found() {
        let function = function();
        let flow = Flow::new(&function);
        let counts: Vec<Counts> = flow.blocks.iter().map(|b| Counts::new(&function, b)).collect();
        let loops = flow.loops();
        let [outer, inner] = &loops[..] else { panic!("{} loops", loops.len()) };
        assert!(inner.body.is_subset(&outer.body));
        let all: Counts = outer.body.iter().map(|&block| counts[block]).sum();
        assert_eq!((all.total, all.exps, all.logits()), (12, 5, 4));
        let paths = flow.paths(outer, &counts).into_iter().map(|path| (path.exps, path.total));
        assert_eq!(paths.collect::<Vec<_>>(), [(4, 9), (5, 12)]);
        assert_eq!(flow.paths(inner, &counts).len(), 1);
    }
}
