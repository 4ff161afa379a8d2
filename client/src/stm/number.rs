//! Numbers of keys: ints without bound and floats, in one order.
//!
//! A number that is not zero is a tag for its sign, the exponent of its highest bit (two bytes, raised by
//! 0x8000, big-endian), and the bits below that one: from the highest on, without the zeros at the end, seven
//! in the upper bits of each byte, whose lowest bit says whether there are more. At least one such byte. Of a
//! negative number everything behind the tag is complemented. Zero and the infinities are tags alone.
//!
//! So equal numbers have equal bytes whatever they were before, and the order of the bytes is that of the
//! numbers: the first difference is one of sign, magnitude or the bits behind.

use num_bigint::{BigInt, BigUint, Sign};

use super::key::{KeyError, Part, Reader};

/// Most bits of an int. One without zeros at its end does not fit into a key much earlier (about 7,100).
pub(super) const INT_BITS_MAX: u64 = 8192;

pub(super) const NEGATIVE_INFINITY: u8 = 0x10;
pub(super) const NEGATIVE: u8 = 0x11;
pub(super) const ZERO: u8 = 0x12;
pub(super) const POSITIVE: u8 = 0x13;
pub(super) const INFINITY: u8 = 0x14;

/// Added to exponents, so that they are in order as unsigned numbers.
const BIAS: i64 = 0x8000;
/// Bits behind the first one in one byte.
const GROUP_BITS: usize = 7;
/// Says in a byte that there are more.
const MORE: u8 = 1;
/// Bits of a float's mantissa, the first one included.
const FLOAT_BITS: u64 = 53;
/// Exponent of the lowest bit that a float can have.
const FLOAT_LOWEST: i64 = -1074;
/// Exponent of the lowest highest bit of a float that is not subnormal.
const FLOAT_NORMAL: i64 = -1022;

pub(super) fn encode_int(number: &BigInt, out: &mut Vec<u8>) -> Result<(), KeyError> {
    let bits = number.bits();
    if bits > INT_BITS_MAX {
        return Err(KeyError::IntTooLarge { bits });
    }
    encode(number.sign() == Sign::Minus, number.magnitude(), 0, out);
    Ok(())
}

pub(super) fn encode_float(number: f64, out: &mut Vec<u8>) -> Result<(), KeyError> {
    if number.is_nan() {
        return Err(KeyError::NotANumber);
    }
    let is_negative = number.is_sign_negative();
    if number.is_infinite() {
        out.push(if is_negative { NEGATIVE_INFINITY } else { INFINITY });
        return Ok(());
    }
    let bits = number.to_bits();
    let fraction = bits & ((1 << (FLOAT_BITS - 1)) - 1);
    let exponent = (bits >> (FLOAT_BITS - 1)) & 0x7ff;
    let (mantissa, lowest) = match exponent {
        0 => (fraction, FLOAT_LOWEST),
        _ => (fraction | 1 << (FLOAT_BITS - 1), exponent.cast_signed() - 1 + FLOAT_LOWEST),
    };
    encode(is_negative, &BigUint::from(mantissa), lowest, out);
    Ok(())
}

/// Encodes `mantissa · 2^lowest`.
fn encode(is_negative: bool, mantissa: &BigUint, lowest: i64, out: &mut Vec<u8>) {
    let Some(zeros) = mantissa.trailing_zeros() else {
        out.push(ZERO);
        return;
    };
    let highest = mantissa.bits() - 1;
    let exponent = highest.cast_signed() + lowest;
    let raised =
        u16::try_from(exponent + BIAS).expect("floats and ints of keys have small exponents");
    let flip = if is_negative { 0xff } else { 0 };
    out.push(if is_negative { NEGATIVE } else { POSITIVE });
    out.extend(raised.to_be_bytes().map(|byte| byte ^ flip));
    let mut bits = (zeros..highest).rev().map(|place| mantissa.bit(place)).peekable();
    loop {
        let mut group = 0;
        for place in (1..=GROUP_BITS).rev() {
            group |= u8::from(bits.next().unwrap_or(false)) << place;
        }
        let has_more = bits.peek().is_some();
        out.push((group | if has_more { MORE } else { 0 }) ^ flip);
        if !has_more {
            return;
        }
    }
}

/// Reads what follows the tag of a number that is neither zero nor infinite.
pub(super) fn decode(is_negative: bool, reader: &mut Reader<'_>) -> Result<Part, KeyError> {
    let flip = if is_negative { 0xff } else { 0 };
    let raised = u16::from_be_bytes([reader.byte()? ^ flip, reader.byte()? ^ flip]);
    let exponent = i64::from(raised) - BIAS;
    let mut mantissa = BigUint::from(1_u8);
    let mut groups = 0;
    loop {
        let byte = reader.byte()? ^ flip;
        mantissa = (mantissa << GROUP_BITS) | BigUint::from(byte >> 1);
        groups += 1;
        if byte & MORE == 0 {
            if byte == 0 && groups > 1 {
                return Err(KeyError::Malformed("a mantissa ends in zeros"));
            }
            break;
        }
    }
    let zeros = mantissa.trailing_zeros().expect("its highest bit is set");
    mantissa >>= zeros;
    // Of the lowest bit that is set.
    let lowest = exponent - (mantissa.bits().cast_signed() - 1);
    if lowest < 0 {
        let float = float(&mantissa, lowest)?;
        return Ok(Part::Float(if is_negative { -float } else { float }));
    }
    if exponent.cast_unsigned() >= INT_BITS_MAX {
        return Err(KeyError::Malformed("an int is too large"));
    }
    let sign = if is_negative { Sign::Minus } else { Sign::Plus };
    Ok(Part::Int(BigInt::from_biguint(sign, mantissa << lowest.cast_unsigned())))
}

/// The float `mantissa · 2^lowest`, which is no whole number: only floats are that.
fn float(mantissa: &BigUint, lowest: i64) -> Result<f64, KeyError> {
    let digits = u64::try_from(mantissa).ok().filter(|digits| *digits < 1 << FLOAT_BITS);
    let (Some(digits), true) = (digits, lowest >= FLOAT_LOWEST) else {
        return Err(KeyError::Malformed("a number is neither whole nor a float"));
    };
    // Exact: the mantissa is below 2^53, and the product is a float.
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let digits = digits as f64;
    let unit = match lowest {
        FLOAT_NORMAL.. => {
            ((lowest - FLOAT_LOWEST - (FLOAT_BITS.cast_signed() - 2)).cast_unsigned())
                << (FLOAT_BITS - 1)
        }
        _ => 1 << (lowest - FLOAT_LOWEST),
    };
    Ok(digits * f64::from_bits(unit))
}
