//! What Grafana and its plugins do with a query before it is sent, and with its answer: variables as its
//! template service writes them, the ClickHouse plugin's macros, and the Infinity plugin's selectors.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// Names are ASCII, which makes it much faster to compile.
static VARIABLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?-u)\$\{(\w+)(?::(\w+))?\}|\$(\w+)").unwrap());

/// What a variable is set to.
#[derive(Clone, Debug)]
pub(crate) enum Setting {
    One(String),
    Many(Vec<String>),
    /// All, and the value that it is given, if that is not all options.
    All(Option<String>, Vec<String>),
}

/// The window and the variables of a dashboard.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) settings: BTreeMap<String, Setting>,
}

impl Scope {
    /// Puts variables in; macros and fields of answers stay.
    pub(crate) fn interpolate(&self, text: &str) -> String {
        let replaced = VARIABLE.replace_all(text, |found: &Captures| {
            let part = |at: usize| found.get(at).map(|part| part.as_str());
            let name = part(1).or(part(3)).unwrap();
            match (name, self.settings.get(name)) {
                ("__from", _) => self.from_ms.to_string(),
                ("__to", _) => self.to_ms.to_string(),
                (_, Some(setting)) => setting.formatted(part(2).unwrap_or("glob")),
                (name, None) if name.starts_with("__") => found[0].to_owned(),
                (name, None) => panic!("no variable {name}: {text}"),
            }
        });
        replaced.into_owned()
    }

    /// A statement as the ClickHouse plugin sends it, for steps of `interval_s`.
    pub(crate) fn statement(&self, sql: &str, interval_s: i64) -> String {
        let (from_s, to_s) = (self.from_ms / 1_000, self.to_ms / 1_000);
        let sql = expand(sql, "$__conditionalAll", |arguments| {
            let [condition, variable] = arguments else { panic!("{sql}: two arguments") };
            let name = variable.trim().trim_start_matches('$');
            match &self.settings[name] {
                Setting::All(..) => "1=1".to_owned(),
                _ => condition.clone(),
            }
        });
        let sql = self.interpolate(&sql);
        let sql = expand(&sql, "$__timeInterval", |arguments| {
            let column = arguments.join(",");
            format!("toStartOfInterval(toDateTime({column}), INTERVAL {interval_s} second)")
        });
        let sql = sql
            .replace("$__fromTime", &format!("toDateTime({from_s})"))
            .replace("$__toTime", &format!("toDateTime({to_s})"))
            .replace("$__interval_s", &interval_s.to_string());
        assert!(!sql.contains("$_"), "a macro that is not known here: {sql}");
        sql
    }
}

impl Setting {
    fn formatted(&self, format: &str) -> String {
        let values = match self {
            // Its formats leave it as it is.
            Self::All(Some(value), _) => return value.clone(),
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) | Self::All(None, values) => values,
        };
        let quoted = |value: &String| format!("'{}'", value.replace('\'', "\\'"));
        match (format, values) {
            ("csv", _) => values.join(","),
            ("pipe", _) => values.join("|"),
            ("singlequote", _) => values.iter().map(quoted).collect::<Vec<_>>().join(","),
            ("regex", _) => {
                let values: Vec<_> = values.iter().map(|value| regex::escape(value)).collect();
                if values.len() == 1 {
                    values[0].clone()
                } else {
                    format!("({})", values.join("|"))
                }
            }
            ("glob", [value]) => value.clone(),
            ("glob", _) => format!("{{{}}}", values.join(",")),
            _ => panic!("a format that is not known here: {format}"),
        }
    }
}

/// Replaces `name(arguments)`, innermost parentheses and all.
fn expand(sql: &str, name: &str, with: impl Fn(&[String]) -> String) -> String {
    let opening = format!("{name}(");
    let Some(at) = sql.rfind(&opening) else { return sql.to_owned() };
    let (mut arguments, mut depth) = (vec![String::new()], 1);
    let rest = &sql[at + opening.len()..];
    for (place, character) in rest.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 1 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            let expanded = format!("{}{}{}", &sql[..at], with(&arguments), &rest[place + 1..]);
            return expand(&expanded, name, with);
        }
        arguments.last_mut().unwrap().push(character);
    }
    panic!("a parenthesis is open: {sql}")
}

/// What a selector finds, as far as dashboards use GJSON: keys, `#` (of an array: what follows of each
/// item, or, last, its length) and `|@flatten`.
pub(crate) fn select(value: &Value, selector: &str) -> Option<Value> {
    if let Some(of) = selector.strip_suffix("|@flatten") {
        let found = select(value, of)?;
        let parts = found.as_array()?.iter().map(|part| part.as_array().cloned().unwrap());
        return Some(Value::Array(parts.flatten().collect()));
    }
    if selector.is_empty() {
        return Some(value.clone());
    }
    let (first, rest) = selector.split_once('.').unwrap_or((selector, ""));
    match (first, value) {
        ("#", Value::Array(items)) if rest.is_empty() => Some(items.len().into()),
        ("#", Value::Array(items)) => {
            Some(Value::Array(items.iter().filter_map(|item| select(item, rest)).collect()))
        }
        // Of nothing there is nothing: a null says that there is none.
        (_, Value::Null) => Some(Value::Null),
        (key, Value::Object(fields)) => select(fields.get(key)?, rest),
        _ => None,
    }
}

#[test]
fn variables_are_written_as_they_are_asked_for() {
    let settings = [
        ("one", Setting::One("a b".to_owned())),
        ("many", Setting::Many(vec!["a.b".to_owned(), "c".to_owned()])),
        ("all", Setting::All(None, vec!["x".to_owned(), "y'z".to_owned()])),
        ("any", Setting::All(Some(",".to_owned()), vec!["x".to_owned()])),
    ];
    let settings = settings.map(|(name, setting)| (name.to_owned(), setting)).into();
    let scope = Scope { from_ms: 1_000, to_ms: 61_000, settings };
    for (text, expected) in [
        ("$one ${one} ${__from}", "a b a b 1000"),
        ("${many} ${many:csv} ${many:regex}", r"{a.b,c} a.b,c (a\.b|c)"),
        ("${all:singlequote} ${any:csv} $__timeFilter", r"'x','y\'z' , $__timeFilter"),
    ] {
        assert_eq!(scope.interpolate(text), expected);
    }
    let sql = "SELECT $__timeInterval(time) WHERE time >= $__fromTime AND time < $__toTime AND \
               $__conditionalAll(f(a, b) IN (${many:singlequote}), $many) AND $__conditionalAll(x IN (1), $all)";
    let expected = "SELECT toStartOfInterval(toDateTime(time), INTERVAL 30 second) WHERE time >= toDateTime(1) \
                    AND time < toDateTime(61) AND f(a, b) IN ('a.b','c') AND 1=1";
    assert_eq!(scope.statement(sql, 30), expected);
}

#[test]
fn selectors_find_what_they_name() {
    let value = serde_json::json!({"a": {"b": 1, "n": null}, "c": [{"d": [1, 2]}, {"d": [3]}]});
    let found = |selector| select(&value, selector).map(|found| found.to_string());
    assert_eq!(found("a.b"), Some("1".to_owned()));
    assert_eq!(found("a.n.x"), Some("null".to_owned()));
    assert_eq!(found("a.x"), None);
    assert_eq!(found("c.#"), Some("2".to_owned()));
    assert_eq!(found("c.#.d"), Some("[[1,2],[3]]".to_owned()));
    assert_eq!(found("c.#.d|@flatten"), Some("[1,2,3]".to_owned()));
}
