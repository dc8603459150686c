//! The gradient of a block by multiples of its exponentials.

use std::marker::PhantomData;

use crate::cpu::blocks::Chunk;
use crate::cpu::convert::Lanes;
use crate::cpu::places::{AddTo, InPlace, Place};
use crate::cpu::rows::LANES;
use crate::cpu::simd::{Isa, Kernel, Simd};

/// Exponentials of student and teacher.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sides(pub [Chunk; 2]);

impl Default for Sides {
    fn default() -> Self {
        Self([[0.0; LANES]; 2])
    }
}

/// Multiples of the exponentials of student and teacher, whose difference is a gradient.
#[derive(Clone, Copy)]
pub(in crate::cpu::divergence) struct Multiples {
    factors: [f32; 2],
    /// Exponentials below it count as 0: their multiples would be subnormal, for what that costs see [`EXP_CUTOFF`].
    least: [f32; 2],
}

impl Multiples {
    pub fn new(factors: [f32; 2]) -> Option<Self> {
        // An ulp more than the division rounds to.
        let least = factors.map(|factor| (f32::MIN_POSITIVE / factor.abs()).next_up());
        factors.iter().all(|factor| factor.is_normal()).then_some(Self { factors, least })
    }

    #[inline(always)]
    fn difference<E: Lanes, I: Isa>(&self, Sides([student, teacher]): &Sides) -> Chunk {
        let mut difference = [0.0; LANES];
        let ([a, b], [least, others]) = (self.factors, self.least);
        for lane in 0..LANES {
            let (e, other) = (student[lane], teacher[lane]);
            let q = if e < least { 0.0 } else { e * a };
            let p = if other < others { 0.0 } else { other * b };
            let value = q - p;
            // As the conversion does of itself where it may.
            let is_subnormal = value.to_bits() & 0x7f80_0000 == 0;
            difference[lane] = if E::IS_BF16 && !I::FLUSHES && is_subnormal { 0.0 } else { value };
        }
        difference
    }
}

/// The gradient of a block that is still to be written, or added.
pub(super) struct Owed<'a, E> {
    pub multiples: Multiples,
    pub grads: &'a mut [E],
    pub add: bool,
}

impl<E: Lanes> Owed<'_, E> {
    pub fn put(self, simd: Simd, exponentials: &[Sides]) {
        let Self { multiples, grads, add } = self;
        match add {
            true => simd.run(PutAll(exponentials, Put(multiples, AddTo(grads)), PhantomData)),
            false => {
                let put = Put(multiples, InPlace(grads));
                simd.store_normal::<E, _>(PutAll(exponentials, put, PhantomData));
            }
        }
    }
}

/// The same beside a sweep.
pub(super) trait Behind<E> {
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, exponentials: &Sides);
    fn put_last<I: Isa>(&mut self, isa: I, exponentials: &Sides);
}

/// There is none.
impl<E> Behind<E> for () {
    #[inline(always)]
    fn put<I: Isa>(&mut self, _: I, _: usize, _: &Sides) {}

    #[inline(always)]
    fn put_last<I: Isa>(&mut self, _: I, _: &Sides) {}
}

pub(super) struct Put<P>(pub Multiples, pub P);

impl<E: Lanes, P: Place<E>> Behind<E> for Put<P> {
    #[inline(always)]
    fn put<I: Isa>(&mut self, isa: I, chunk: usize, exponentials: &Sides) {
        self.1.prefetch(isa, chunk);
        self.1.put(isa, chunk, &self.0.difference::<E, I>(exponentials));
    }

    #[inline(always)]
    fn put_last<I: Isa>(&mut self, isa: I, exponentials: &Sides) {
        self.1.put_last(isa, &self.0.difference::<E, I>(exponentials));
    }
}

struct PutAll<'a, E, P>(&'a [Sides], Put<P>, PhantomData<E>);

impl<E: Lanes, P: Place<E>> Kernel for PutAll<'_, E, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(exponentials, mut put, _) = self;
        let chunks = put.1.chunks();
        for (chunk, exponentials) in exponentials[..chunks].iter().enumerate() {
            put.put(isa, chunk, exponentials);
        }
        if put.1.last().is_some() {
            put.put_last(isa, &exponentials[chunks]);
        }
    }
}
