//! Sums of many points with small factors: buckets, filled in affine coordinates.
use ark_ec::short_weierstrass::{Affine, Projective, SWCurveConfig};
use ark_ec::{AffineRepr, CurveGroup};
use ark_ff::{batch_inversion, AdditiveGroup, Field, Zero};

/// 2^(shift * plane) * digit * point, as a part of one of several sums.
pub struct Term<P: SWCurveConfig> {
    pub sum: usize,
    pub plane: usize,
    pub digit: i16,
    pub point: Affine<P>,
}

/// p + q, given the inverse of the slope's denominator.
fn add<P: SWCurveConfig>(p: &Affine<P>, q: &Affine<P>, inverse: &P::BaseField) -> Affine<P> {
    let rise = match (p.is_zero(), q.is_zero()) {
        (true, _) => return *q,
        (_, true) => return *p,
        _ if p.x != q.x => q.y - p.y,
        _ if p.y != q.y => return Affine::identity(),
        _ => p.x.square() * P::BaseField::from(3u64),
    };
    let slope = rise * inverse;
    let x = slope.square() - p.x - q.x;
    Affine::new_unchecked(x, slope * (p.x - x) - p.y)
}

/// Sum of each bucket; points lie in bucket order. Pairs are added with one inversion a round.
fn bucket_sums<P: SWCurveConfig>(
    mut points: Vec<Affine<P>>,
    mut sizes: Vec<usize>,
) -> Vec<Affine<P>> {
    let mut run = vec![];
    while sizes.iter().any(|&n| n > 1) {
        let mut at = 0;
        for n in &sizes {
            let pairs = points[at..at + n / 2 * 2].chunks_exact(2);
            run.extend(pairs.map(|p| {
                if p[1].x == p[0].x { p[0].y.double() } else { p[1].x - p[0].x }
            }));
            at += n;
        }
        batch_inversion(&mut run);
        let (mut inverses, mut read, mut write) = (run.drain(..), 0, 0);
        for n in &mut sizes {
            for pair in 0..n.div_ceil(2) {
                let full = 2 * pair + 1 < *n; // an odd one out moves up alone
                points[write] = if full {
                    add(&points[read], &points[read + 1], &inverses.next().unwrap())
                } else {
                    points[read]
                };
                (read, write) = (read + 1 + full as usize, write + 1);
            }
            *n = n.div_ceil(2);
        }
    }
    let mut points = points.into_iter();
    let sum = |&n: &usize| if n == 0 { Affine::identity() } else { points.next().unwrap() };
    sizes.iter().map(sum).collect()
}

/// How factors are cut: |digit| <= 2^(shift - 1), and planes * shift is at least their bits.
#[derive(Clone, Copy)]
pub struct Cut {
    pub planes: usize,
    pub shift: usize,
}

/// Several sums at once, so that they share inversions.
pub fn combine<P: SWCurveConfig>(terms: &[Term<P>], sums: usize, cut: Cut) -> Vec<Affine<P>> {
    let half = 1 << (cut.shift - 1);
    let bucket = |t: &Term<P>| {
        (t.sum * cut.planes + t.plane) * half + t.digit.unsigned_abs() as usize - 1
    };
    let used = || terms.iter().filter(|t| t.digit != 0);
    let mut sizes = vec![0; sums * cut.planes * half];
    used().for_each(|t| sizes[bucket(t)] += 1);
    let starts = sizes.iter().scan(0, |sum, n| { *sum += n; Some(*sum - n) });
    let mut next: Vec<usize> = starts.collect();
    let mut sorted = vec![Affine::identity(); sizes.iter().sum()];
    for t in used() {
        sorted[next[bucket(t)]] = if t.digit < 0 { -t.point } else { t.point };
        next[bucket(t)] += 1;
    }
    let buckets = bucket_sums(sorted, sizes);
    let totals = buckets.chunks(cut.planes * half).map(|sum| weigh(sum, half, cut.shift));
    Projective::normalize_batch(&totals.collect::<Vec<_>>())
}

/// Sum of 2^(shift * plane) * digit * bucket, digits counting from 1.
fn weigh<P: SWCurveConfig>(buckets: &[Affine<P>], half: usize, shift: usize) -> Projective<P> {
    buckets.chunks(half).rev().fold(Projective::zero(), |mut total, plane| {
        (0..shift).for_each(|_| { total.double_in_place(); });
        let mut running = Projective::zero();
        plane.iter().rev().for_each(|sum| { running += sum; total += &running; });
        total
    })
}
