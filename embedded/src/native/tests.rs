use super::*;

const REVISION: u64 = 54_460;

/// A text with its length, which is below 128.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A column of a block of two rows, as the engine writes it.
struct Column {
    name: &'static str,
    of: &'static str,
    data: Vec<u8>,
}

fn columns() -> Vec<Column> {
    let column = |name, of, data: Vec<Vec<u8>>| Column { name, of, data: data.concat() };
    let bytes = |bytes: &[u8]| bytes.to_vec();
    vec![
        column("a", "UInt16", vec![bytes(&[1, 2, 3, 4])]),
        column("b", "String", vec![text(""), text("two")]),
        column("c", "Nullable(String)", vec![bytes(&[1, 0]), text(""), text("x")]),
        // [[1], []] and [], whose elements are counted by the offsets before.
        column("d", "Array(Array(UInt8))", vec![numbers(&[2, 2]), numbers(&[1, 1]), bytes(&[1])]),
        column("e", "Array(String)", vec![numbers(&[0, 0])]),
        column("f", "Map(String, UInt8)", vec![numbers(&[1, 1]), text("k"), bytes(&[7])]),
        column(
            "g",
            "Tuple(x Tuple(UInt8, String), `y, z` Date)",
            vec![bytes(&[1, 2]), text("p"), text("q"), bytes(&[0; 4])],
        ),
        // Version; indexes of a byte, and keys: the default, and one.
        column(
            "h",
            "LowCardinality(Nullable(String))",
            vec![numbers(&[1, 0x600, 2]), text(""), text("k"), numbers(&[2]), bytes(&[1, 0])],
        ),
        // The prefix comes before the offsets; indexes of two bytes.
        column(
            "i",
            "Array(LowCardinality(FixedString(2)))",
            vec![numbers(&[1, 1, 2, 0x601, 1]), bytes(b"zz"), numbers(&[2]), bytes(&[0; 4])],
        ),
        column("j", "Array(LowCardinality(String))", vec![numbers(&[1, 0, 0])]),
        column("k", "Tuple()", vec![bytes(b"00")]),
        column(
            "l",
            "Tuple(JSON, Int8)",
            vec![numbers(&[1]), text("{}"), text("{\"a\":1}"), bytes(&[1, 2])],
        ),
        column("m", "String", vec![text("last"), text("")]),
    ]
}

/// A block of the engine's, or as a client of a revision reads it.
fn block(columns: &[Column], rows: u8, revision: u64) -> Vec<u8> {
    let mut block = if revision > 0 { BLOCK_INFO.to_vec() } else { Vec::new() };
    block.extend([columns.len() as u8, rows]);
    for column in columns {
        block.extend([text(column.name), text(column.of)].concat());
        block.extend((revision >= CUSTOM_SERIALIZATION).then_some(0));
        block.extend(if rows > 0 { &column.data[..] } else { &[] });
    }
    block
}

/// Blocks of the engine's, and as a client of a revision reads them.
fn answer(revision: u64) -> Vec<u8> {
    [block(&columns(), 0, revision), block(&columns(), 2, revision), block(&columns(), 2, revision)]
        .concat()
}

fn translated(answer: &[u8], revision: u64, piece: usize) -> Result<Vec<u8>, Exception> {
    let (mut blocks, mut output) = (Blocks::wanted(revision, NATIVE).unwrap(), Vec::new());
    for piece in answer.chunks(piece) {
        output.extend_from_slice(&blocks.push(piece)?);
    }
    blocks.finish()?;
    Ok(output)
}

#[test]
fn blocks_and_columns_get_what_the_revision_has_however_they_are_cut() {
    for piece in [1, 2, 3, 7, 50, 10_000] {
        for revision in [REVISION, CUSTOM_SERIALIZATION, CUSTOM_SERIALIZATION - 1] {
            assert_eq!(
                translated(&answer(0), revision, piece).unwrap(),
                answer(revision),
                "{piece}"
            );
        }
    }
    assert!(Blocks::wanted(0, NATIVE).is_none() && Blocks::wanted(REVISION, "CSV").is_none());
}

#[test]
fn an_answer_that_ends_early_is_an_error() {
    let answer = answer(0);
    let ends = [
        0,
        block(&columns(), 0, 0).len(),
        block(&columns(), 0, 0).len() + block(&columns(), 2, 0).len(),
    ];
    for length in 0..answer.len() {
        let whole = translated(&answer[..length], REVISION, 64).is_ok();
        assert_eq!(whole, ends.contains(&length), "{length}");
    }
}

#[test]
fn a_layout_that_is_not_known_is_refused() {
    let refused = |of: &'static str, data: Vec<u8>| {
        let columns = [Column { name: "state", of, data }];
        translated(&block(&columns, 2, 0), REVISION, 64).unwrap_err()
    };
    let error = refused("AggregateFunction(sum, UInt8)", vec![0; 4]);
    assert!(
        error.code == 48 && error.message.contains("AggregateFunction(sum, UInt8)"),
        "{error:?}"
    );
    // JSON in its parts.
    assert_eq!(refused("JSON", numbers(&[0])).code, 48);
    // Lengths that no memory holds.
    assert_eq!(refused("Array(UInt64)", numbers(&[1, u64::MAX])).code, 48);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_an_error_or_an_answer(answer in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = translated(&answer, REVISION, 7);
    }
}
