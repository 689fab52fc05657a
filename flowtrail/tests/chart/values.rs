//! The chart's values: each is described by its schema, and listed in the chart's README.

use serde_json::Value;

use crate::rendered::{chart, yaml};

const BEGIN: &str = "<!-- values: made of values.yaml and values.schema.json -->\n";
const END: &str = "<!-- end of values -->\n";

fn schema() -> Value {
    serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap())
        .unwrap()
}

/// A schema's `properties`, where it refers to a definition those of that.
fn properties<'a>(root: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    schema.get("properties")
}

/// Calls with the path, schema and default of each value that is not divided further.
fn walk(
    root: &Value,
    path: &str,
    schema: &Value,
    value: &Value,
    found: &mut dyn FnMut(&str, &Value, &Value),
) {
    let Some(properties) = properties(root, schema) else { return found(path, schema, value) };
    let (known, given) = (properties.as_object().unwrap(), value.as_object().unwrap());
    for name in given.keys() {
        assert!(known.contains_key(name), "{path}.{name} is not in values.schema.json");
    }
    for (name, schema) in known {
        let inner = format!("{path}.{name}");
        let inner = inner.trim_start_matches('.');
        match given.get(name) {
            Some(value) => walk(root, inner, schema, value, found),
            None => assert_eq!(inner, "global", "it has no default in values.yaml"),
        }
    }
}

#[test]
fn objects_take_nothing_else_and_all_is_described() {
    fn check(place: &str, schema: &Value) {
        if let Some(inner) = schema.get("items") {
            check(&format!("{place}[]"), inner);
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
        assert_eq!(schema["additionalProperties"], false, "{place}");
        for (name, inner) in properties {
            let place = format!("{place}.{name}");
            let description = inner["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.'), "{place}: {description:?}");
            check(&place, inner);
        }
    }
    let schema = schema();
    check("", &schema);
    for (name, definition) in schema["definitions"].as_object().unwrap() {
        check(name, definition);
    }
}

#[test]
fn the_readme_lists_all_values() {
    let (schema, defaults) = (schema(), yaml(&chart().join("values.yaml")));
    let mut table = String::from("| value | default | for |\n|---|---|---|\n");
    walk(&schema, "", &schema, &defaults, &mut |path, schema, value| {
        let text = schema["description"].as_str().unwrap().replace('|', "\\|");
        table += &format!("| `{path}` | `{value}` | {text} |\n");
    });
    let path = chart().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{table}\n{END}{after}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    } else {
        let hint = "values have changed: run this test with UPDATE_GOLDEN=1";
        assert!(readme == expected, "{}: {hint}", path.display());
    }
}

#[test]
fn values_for_a_small_cluster_are_values() {
    let (schema, small) = (schema(), yaml(&chart().join("values-small.yaml")));
    let mut defaults = yaml(&chart().join("values.yaml"));
    merge(&mut defaults, &small);
    // It fails for a value that the schema does not know.
    walk(&schema, "", &schema, &defaults, &mut |_, _, _| {});
}

/// As Helm lays values over the chart's.
fn merge(onto: &mut Value, from: &Value) {
    match (onto, from) {
        (Value::Object(onto), Value::Object(from)) => {
            for (name, value) in from {
                merge(onto.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
        (onto, from) => *onto = from.clone(),
    }
}
