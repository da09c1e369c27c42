//! Which signatures of several groups, each on its own message, do not verify.
use crate::points;
use crate::sums::{combine, Cut, Term};
use ark_bn254::{Bn254, Config, Fr, G1Affine, G1Projective, G2Affine, G2Projective};
use ark_ec::{bn::G2Prepared, pairing::Pairing, pairing::PairingOutput, AffineRepr, CurveGroup};
use ark_ff::{AdditiveGroup, PrimeField, Zero};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, LazyLock, OnceLock};

type Lines = G2Prepared<Config>;
type Defect = PairingOutput<Bn254>;

static G2_LINES: LazyLock<Lines> = LazyLock::new(|| G2Affine::generator().into());

/// A key's multiples by 256^0 .. 256^7, and its line table once a lone signature needed it.
pub struct Powers([G2Affine; 8], OnceLock<Lines>);

impl Powers {
    pub fn new(key: G2Affine) -> Self {
        let mut power = G2Projective::from(key);
        let powers: [_; 8] = std::array::from_fn(|_| {
            let now = power;
            (0..8).for_each(|_| { power.double_in_place(); });
            now
        });
        Powers(G2Projective::normalize_batch(&powers).try_into().unwrap(), OnceLock::new())
    }

    fn lines(&self) -> Lines {
        self.1.get_or_init(|| self.0[0].into()).clone()
    }
}

/// One signature as it came in: None where it had not 64 bytes.
pub type Claim = (Option<[u8; 64]>, Arc<Powers>);

/// One signature with its factor, the sum of digits[j] * 256^j: 64 random bits, not zero.
struct Entry {
    group: usize,
    index: usize,
    signature: G1Affine,
    key: Arc<Powers>,
    digits: [i8; 8],
}

impl Entry {
    fn times(&self, point: &G1Affine) -> G1Projective {
        let factor = self.digits.iter().rev().fold(0i128, |sum, &d| sum * 256 + d as i128);
        let product = point.mul_bigint([factor.unsigned_abs() as u64]);
        if factor < 0 { -product } else { product }
    }
}

/// Entries on one message; never empty.
type Part<'a> = (G1Affine, &'a [Entry]);

fn nibbles(digits: &[i8; 8]) -> impl Iterator<Item = (usize, i16, i16)> + '_ {
    digits.iter().enumerate().map(|(j, &d)| {
        let low = ((d as i16 + 8) & 15) - 8;
        (j, low, (d as i16 - low) >> 4)
    })
}

const BYTES: Cut = Cut { planes: 1, shift: 8 };
const NIBBLES: Cut = Cut { planes: 2, shift: 4 };
const WINDOWS: Cut = Cut { planes: 16, shift: 4 };

/// For each group the sum of factor * key; keys carry their multiples by 256^j, so that nothing
/// is doubled. Above about 64 keys one set of 128 buckets beats two of 8.
fn weighted_keys(groups: &[&[Entry]]) -> Vec<G2Affine> {
    let (wide, narrow): (Vec<_>, Vec<_>) =
        (0..groups.len()).partition(|&i| groups[i].len() > 64);
    let mut terms = vec![];
    for (sum, &i) in wide.iter().enumerate() {
        for e in groups[i] {
            terms.extend((0..8).map(|j| {
                Term { sum, plane: 0, digit: e.digits[j] as i16, point: e.key.0[j] }
            }));
        }
    }
    let wide_sums = combine(&terms, wide.len(), BYTES);
    terms.clear();
    for (sum, &i) in narrow.iter().enumerate() {
        for e in groups[i] {
            for (j, low, high) in nibbles(&e.digits) {
                let point = e.key.0[j];
                terms.push(Term { sum, plane: 0, digit: low, point });
                terms.push(Term { sum, plane: 1, digit: high, point });
            }
        }
    }
    let narrow_sums = combine(&terms, narrow.len(), NIBBLES);
    let mut sums = vec![G2Affine::identity(); groups.len()];
    wide.into_iter().zip(wide_sums).for_each(|(i, sum)| sums[i] = sum);
    narrow.into_iter().zip(narrow_sums).for_each(|(i, sum)| sums[i] = sum);
    sums
}

/// The sum of factor * signature.
fn weighted_signatures<'a>(entries: impl Iterator<Item = &'a Entry>) -> G1Affine {
    let mut terms = vec![];
    for e in entries {
        for (j, low, high) in nibbles(&e.digits) {
            let point = e.signature;
            terms.push(Term { sum: 0, plane: 2 * j, digit: low, point });
            terms.push(Term { sum: 0, plane: 2 * j + 1, digit: high, point });
        }
    }
    combine(&terms, 1, WINDOWS)[0]
}

/// The product over the parts of e(hash, sum of factor * key), divided by e(sum of factor *
/// signature, g2): zero (one, written additively) when every entry verifies, and otherwise only
/// with probability 2^-63; never otherwise for a lone entry.
fn defect(parts: &[Part]) -> Defect {
    let (lone, several): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|p| p.1.len() == 1);
    // A lone signature's key has its line table: the factor goes to the message.
    let messages: Vec<_> = lone.iter().map(|(hash, entries)| entries[0].times(hash)).collect();
    let mut left = G1Projective::normalize_batch(&messages);
    let mut right: Vec<Lines> = lone.iter().map(|(_, entries)| entries[0].key.lines()).collect();
    let groups: Vec<&[Entry]> = several.iter().map(|(_, entries)| *entries).collect();
    left.extend(several.iter().map(|(hash, _)| *hash));
    right.extend(weighted_keys(&groups).into_iter().map(Lines::from));
    left.push(-weighted_signatures(parts.iter().flat_map(|(_, entries)| entries.iter())));
    right.push(G2_LINES.clone());
    Bn254::multi_pairing(left, right)
}

/// The same for one entry, without its factor.
fn lone(hash: &G1Affine, entry: &Entry) -> Defect {
    Bn254::multi_pairing([*hash, -entry.signature], [entry.key.lines(), G2_LINES.clone()])
}

/// Halving, across messages first. The right half's defect is the whole's less the left's, so a
/// split costs one check. Factors are kept: the input is fixed for the whole call.
fn search(parts: &[Part], whole: Defect, bad: &mut Vec<(usize, usize)>) {
    if whole.is_zero() {
        return;
    }
    if let [(_, [one])] = parts {
        return bad.push((one.group, one.index));
    }
    let halves: [Vec<Part>; 2] = match parts {
        [(hash, entries)] => {
            let (left, right) = entries.split_at(entries.len() / 2);
            [vec![(*hash, left)], vec![(*hash, right)]]
        }
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            [left.to_vec(), right.to_vec()]
        }
    };
    let part = defect(&halves[0]);
    search(&halves[0], part, bad);
    search(&halves[1], whole - part, bad);
}

fn bad_entries(parts: &[Part]) -> Vec<(usize, usize)> {
    let mut bad = vec![];
    if let [(hash, [one])] = parts {
        search(parts, lone(hash, one), &mut bad);
    } else if !parts.is_empty() {
        search(parts, defect(parts), &mut bad);
    }
    bad
}

/// Indices, per group and ascending, of the claims that do not verify, malformed ones included.
///
/// `random` has 8 bytes for each claim, drawn after the claims were fixed. Should the arithmetic
/// panic, each claim is judged alone, and one that panics is bad.
pub fn bad_claims(groups: Vec<(G1Affine, Vec<Claim>)>, random: &[[u8; 8]]) -> Vec<Vec<usize>> {
    let mut bad = vec![vec![]; groups.len()];
    let mut factors = random.iter();
    let mut decoded = vec![];
    for (group, (hash, claims)) in groups.into_iter().enumerate() {
        let mut entries = Vec::with_capacity(claims.len());
        for (index, (bytes, key)) in claims.into_iter().enumerate() {
            let digits = factors.next().expect("one factor per claim").map(|b| b as i8);
            // Zero would pass anything; as another value's double it leaves 2^-63.
            let digits = if digits == [0; 8] { [1; 8] } else { digits };
            match bytes.as_ref().and_then(points::g1) {
                Some(signature) => entries.push(Entry { group, index, signature, key, digits }),
                None => bad[group].push(index),
            }
        }
        decoded.push((hash, entries));
    }
    let parts: Vec<Part> =
        decoded.iter().filter(|d| !d.1.is_empty()).map(|d| (d.0, &d.1[..])).collect();
    let found = catch_unwind(AssertUnwindSafe(|| bad_entries(&parts)));
    for (group, index) in found.unwrap_or_else(|_| one_by_one(&parts)) {
        bad[group].push(index);
    }
    bad.iter_mut().for_each(|b| b.sort_unstable());
    bad
}

fn one_by_one(parts: &[Part]) -> Vec<(usize, usize)> {
    let singles = parts.iter().flat_map(|(hash, entries)| entries.iter().map(move |e| (hash, e)));
    let fails = |hash: &G1Affine, e: &Entry| {
        catch_unwind(AssertUnwindSafe(|| !lone(hash, e).is_zero())).unwrap_or(true)
    };
    singles.filter(|(hash, e)| fails(hash, e)).map(|(_, e)| (e.group, e.index)).collect()
}

pub fn sum(keys: &[Arc<Powers>]) -> G2Affine {
    keys.iter().fold(G2Projective::zero(), |sum, key| sum + key.0[0]).into_affine()
}

/// e(sigma + gamma * apk, -g2) * e(hash + gamma * g1, key) = 1.
pub fn certifies(
    hash: G1Affine,
    apk: G1Affine,
    key: G2Affine,
    sigma: G1Affine,
    gamma: Fr,
) -> bool {
    let gamma = gamma.into_bigint();
    let left = (G1Projective::from(sigma) + apk.mul_bigint(gamma)).into_affine();
    let right = (G1Projective::from(hash) + G1Affine::generator().mul_bigint(gamma)).into_affine();
    let lines: [Lines; 2] = [G2_LINES.clone(), key.into()];
    Bn254::multi_pairing([-left, right], lines).is_zero()
}
