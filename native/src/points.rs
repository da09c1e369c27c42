//! Bytes to points and back. Big-endian; a G2 point is x.c0, x.c1, y.c0, y.c1.
use ark_bn254::{Fq, Fq2, G1Affine, G2Affine};
use ark_ec::AffineRepr;
use ark_ff::{BigInt, Field, PrimeField};

/// None from the modulus on.
fn coordinate(bytes: &[u8]) -> Option<Fq> {
    let limb = |i: usize| u64::from_be_bytes(bytes[24 - 8 * i..32 - 8 * i].try_into().unwrap());
    Fq::from_bigint(BigInt([limb(0), limb(1), limb(2), limb(3)]))
}

/// Range, curve and not infinity, which arkworks 0.6 writes as (0, 0) and calls on the curve.
/// The cofactor is 1: there is no subgroup to check.
pub fn g1(bytes: &[u8; 64]) -> Option<G1Affine> {
    let point = G1Affine::new_unchecked(coordinate(&bytes[..32])?, coordinate(&bytes[32..])?);
    (!point.is_zero() && point.is_on_curve()).then_some(point)
}

/// Range, curve, subgroup and not infinity.
pub fn g2(bytes: &[u8; 128]) -> Option<G2Affine> {
    let c: Option<Vec<Fq>> = bytes.chunks(32).map(coordinate).collect();
    let point = c.map(|c| G2Affine::new_unchecked(Fq2::new(c[0], c[1]), Fq2::new(c[2], c[3])))?;
    let valid =
        !point.is_zero() && point.is_on_curve() && point.is_in_correct_subgroup_assuming_on_curve();
    valid.then_some(point)
}

fn encode(coordinates: &[Fq]) -> Vec<u8> {
    let limbs = coordinates.iter().flat_map(|c| c.into_bigint().0.into_iter().rev());
    limbs.flat_map(u64::to_be_bytes).collect()
}

/// Infinity is zeros.
pub fn g2_bytes(point: &G2Affine) -> Vec<u8> {
    if point.is_zero() {
        return vec![0; 128];
    }
    encode(&[point.x.c0, point.x.c1, point.y.c0, point.y.c1])
}

/// x = digest mod p, then x + 1 until x^3 + 3 is a square; y is its (p + 1) / 4 th power.
/// As the contract's `BN254.hashToG1`.
pub fn hash_to_g1(digest: &[u8; 32]) -> G1Affine {
    let mut x = Fq::from_be_bytes_mod_order(digest);
    let mut power = Fq::MODULUS;
    power.0[0] += 1; // no carry
    let power = power >> 2;
    loop {
        let square = x.square() * x + Fq::from(3u64);
        let y = square.pow(power);
        if y.square() == square {
            return G1Affine::new_unchecked(x, y);
        }
        x += Fq::ONE;
    }
}

pub fn g1_bytes(point: &G1Affine) -> Vec<u8> {
    encode(&[point.x, point.y])
}

/// Big-endian, reduced.
pub fn scalar(bytes: &[u8; 32]) -> ark_bn254::Fr {
    ark_bn254::Fr::from_be_bytes_mod_order(bytes)
}

