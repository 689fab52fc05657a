//! What is fuzzed of the query service, as in `bodies.rs`: which is apart, because capture and query do not know
//! each other.

use flowtrail_query::Expression;

/// An expression of the filter language.
pub(crate) fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Expression>() {
        Ok(expression) => {
            let printed = expression.to_string();
            // Printing may add quotes and spaces, beyond what is read.
            if printed.len() <= Expression::MAX_LENGTH {
                assert_eq!(printed.parse(), Ok(expression), "{printed}");
            }
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.character), "{error}");
        }
    }
}
