//! Decoding held against prost's: the same bytes are refused, and all others mean the same.

use proptest::prelude::*;

use super::*;

/// A batch with every field set, as bytes.
fn bytes() -> Vec<u8> {
    let hex = include_str!("../../tests/golden/flow_batch.hex").trim();
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// What prost makes of the bytes, written anew: each field once, in order, nothing unknown.
fn by_prost(bytes: &[u8]) -> Option<Vec<u8>> {
    proto::FlowBatch::decode(bytes).ok().map(|batch| batch.encode_to_vec())
}

fn same(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (decode(bytes), by_prost(bytes)) {
        (Err(DecodeError::Protobuf(_)), None) => {}
        (ours, Some(theirs)) => prop_assert_eq!(ours, decode(&theirs)),
        (ours, None) => prop_assert!(false, "prost refuses what we take for {ours:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn damaged_bytes_mean_what_prost_says(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        same(&bytes)?;
    }

    #[test]
    fn parts_in_any_order_mean_what_prost_says(
        parts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        other in proptest::collection::vec(any::<u8>(), 0..12),
    ) {
        // A message followed by another is both of them, merged.
        let mut all = other;
        for at in parts {
            let bytes = bytes();
            all.splice(0..0, bytes[at.index(bytes.len())..].iter().copied());
            all.extend(bytes);
        }
        same(&all)?;
    }
}

#[test]
fn fields_and_groups_of_a_newer_version_are_skipped() {
    let known = bytes();
    // Field 100: a varint, a fixed64, a text, a group with a fixed32 in it.
    let newer: [&[u8]; 4] = [
        &[0xa0, 0x06, 0x96, 0x01],
        &[0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xa2, 0x06, 2, b'h', b'i'],
        &[0xa3, 0x06, 0x0d, 1, 2, 3, 4, 0xa4, 0x06],
    ];
    for field in newer {
        let both = [field, &known, field].concat();
        assert_eq!(decode(&both), decode(&known));
    }
    let unclosed = [&known[..], &[0xa3, 0x06]].concat();
    assert_eq!(decode(&unclosed), Err(Malformed::Cut.into()));
    let deep = [&known[..], &[0xa3, 0x06].repeat(1_000_000)].concat();
    assert_eq!(decode(&deep), Err(Malformed::Depth.into()));
}
