//! Python binding: individual verdicts for groups of BN254 BLS signatures (signature in G1, key
//! in G2). The GIL is released during the work, and no panic leaves this module.
mod points;
mod sums;
mod verdicts;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::{prelude::*, types::PyBytes};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use verdicts::{Claim, Powers};

/// A public key, decoded once; about 1 kB, and 17 kB more once it signed alone.
#[pyclass(frozen)]
struct Key(Arc<Powers>);

type Bytes<'py> = Bound<'py, PyBytes>;
type Group<'py> = (Bytes<'py>, Vec<Bytes<'py>>, Vec<Py<Key>>);

fn sized<const N: usize>(bytes: &Bytes<'_>) -> PyResult<[u8; N]> {
    let wrong = |_| PyValueError::new_err(format!("{N} bytes expected"));
    bytes.as_bytes().try_into().map_err(wrong)
}

/// Run without the GIL; a panic becomes a RuntimeError.
fn apart<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let result = py.detach(|| catch_unwind(AssertUnwindSafe(work)).ok());
    result.ok_or_else(|| PyRuntimeError::new_err("the arithmetic panicked"))
}

#[pymethods]
impl Key {
    /// 128 bytes: x.c0, x.c1, y.c0, y.c1. Range, curve, subgroup and infinity are checked:
    /// ValueError.
    #[new]
    fn new(py: Python<'_>, data: Bytes<'_>) -> PyResult<Self> {
        let data = sized(&data)?;
        let powers = apart(py, || points::g2(&data).map(Powers::new))?;
        powers.map(|p| Key(Arc::new(p))).ok_or_else(|| PyValueError::new_err("not a key"))
    }
}

/// For each group (message point, signatures, keys) the ascending indices of the signatures that
/// do not verify, malformed ones included. ValueError for a message off the curve or a group
/// with another number of keys.
#[pyfunction]
fn bad_signatures(py: Python<'_>, groups: Vec<Group<'_>>) -> PyResult<Vec<Vec<usize>>> {
    let mut claimed = Vec::with_capacity(groups.len());
    let mut count = 0;
    for (message, signatures, keys) in &groups {
        if signatures.len() != keys.len() {
            return Err(PyValueError::new_err("one key per signature"));
        }
        let hash = points::g1(&sized(message)?);
        let hash = hash.ok_or_else(|| PyValueError::new_err("message point off the curve"))?;
        let claim = |(s, k): (&Bytes<'_>, &Py<Key>)| -> Claim {
            (s.as_bytes().try_into().ok(), k.get().0.clone())
        };
        claimed.push((hash, signatures.iter().zip(keys).map(claim).collect::<Vec<_>>()));
        count += keys.len();
    }
    let mut random = vec![[0u8; 8]; count];
    let drawn = getrandom::fill(random.as_flattened_mut());
    drawn.map_err(|_| PyRuntimeError::new_err("the system gives no random numbers"))?;
    apart(py, || verdicts::bad_claims(claimed, &random))
}

/// The sum of keys, 128 bytes; infinity is zeros.
#[pyfunction]
fn sum_keys(py: Python<'_>, keys: Vec<Py<Key>>) -> PyResult<Vec<u8>> {
    let keys: Vec<_> = keys.iter().map(|key| key.get().0.clone()).collect();
    apart(py, || points::g2_bytes(&verdicts::sum(&keys)))
}

/// The contract's check of an aggregate, e(sigma + gamma * apk, -g2) * e(message + gamma * g1,
/// key) = 1. False also for points that are malformed or infinity.
#[pyfunction]
fn certifies(
    py: Python<'_>,
    message: Bytes<'_>,
    apk: Bytes<'_>,
    key: Bytes<'_>,
    sigma: Bytes<'_>,
    gamma: Bytes<'_>,
) -> PyResult<bool> {
    let (message, apk, sigma) = (sized(&message)?, sized(&apk)?, sized(&sigma)?);
    let (key, gamma) = (sized(&key)?, sized(&gamma)?);
    apart(py, || {
        let points = (points::g1(&message), points::g1(&apk), points::g2(&key), points::g1(&sigma));
        let (Some(message), Some(apk), Some(key), Some(sigma)) = points else { return false };
        verdicts::certifies(message, apk, key, sigma, points::scalar(&gamma))
    })
}

/// The point of a 32-byte message, 64 bytes.
#[pyfunction]
fn hash_to_g1<'py>(py: Python<'py>, digest: Bytes<'py>) -> PyResult<Bytes<'py>> {
    let digest = sized(&digest)?;
    let point = apart(py, || points::g1_bytes(&points::hash_to_g1(&digest)))?;
    Ok(PyBytes::new(py, &point))
}

#[pymodule]
fn bn254bls(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Key>()?;
    m.add_function(wrap_pyfunction!(bad_signatures, m)?)?;
    m.add_function(wrap_pyfunction!(sum_keys, m)?)?;
    m.add_function(wrap_pyfunction!(certifies, m)?)?;
    m.add_function(wrap_pyfunction!(hash_to_g1, m)?)
}
