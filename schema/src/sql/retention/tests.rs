use super::*;

fn days(days: u64) -> Option<Duration> {
    Some(DAY * days as u32)
}

#[test]
fn the_schema_keeps_what_it_says() {
    let schema = Retention::of_schema();
    let years = |years: u64| Some(Duration::from_secs(years * 31_557_600));
    let expected = Retention {
        flows: days(14),
        minutes: days(90),
        hours: years(2),
        coverage: days(90),
        deliveries: days(90),
        identities: days(90),
    };
    assert_eq!(schema, expected);
    assert_eq!(schema.validate(), Ok(()));
}

#[test]
fn intervals_are_read_as_they_are_written_and_as_clickhouse_shows_them() {
    let kept = |ttl: &str| kept(&format!("CREATE TABLE t (a DateTime) TTL {ttl} SETTINGS b = 1"));
    for seconds in [1, 60, 90, 7_200, 86_400, 14 * 86_400, 31_557_600, 3 * 31_557_600] {
        let length = Duration::from_secs(seconds);
        assert_eq!(kept(&format!("a + {}", sql(length))), Some(length), "{}", sql(length));
    }
    assert_eq!(kept("toDateTime(greatest(a, b)) + toIntervalDay(90)"), days(90));
    assert_eq!(kept("a + INTERVAL 2 WEEK"), days(14));
    for unknown in ["a", "a + toIntervalDay(x)", "a + INTERVAL 1 FORTNIGHT", "INTERVAL"] {
        assert_eq!(kept(unknown), None, "{unknown}");
    }
    // A column's is not the table's.
    assert_eq!(super::kept("CREATE TABLE t (a DateTime TTL a + INTERVAL 1 DAY) ORDER BY a"), None);
}

#[test]
fn a_table_is_told_to_keep_its_rows_by_its_own_expression() {
    let [setting, ttl] = keep("identities", DAY * 20).unwrap();
    assert!(setting.ends_with("materialize_ttl_recalculate_only = 1"), "{setting}");
    assert_eq!(
        ttl,
        "ALTER TABLE identities MODIFY TTL toDateTime(greatest(last_seen, released, deleted)) + INTERVAL 20 DAY"
    );
    assert_eq!(keep("identities_seen", DAY), None);
    for (table, kept) in Retention::of_schema().tables() {
        assert!(keep(table, kept.unwrap()).is_some(), "{table}");
    }
}

#[test]
fn a_new_table_is_made_with_what_is_asked_for() {
    let asked = Retention { flows: days(3), ..Retention::default() };
    for migration in MIGRATIONS {
        let applied = asked.applied(migration.statement);
        if migration.name == "flows" {
            assert!(applied.contains("TTL interval_start + INTERVAL 3 DAY\n"), "{applied}");
        } else {
            assert_eq!(applied, migration.statement);
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_flag_that_says_it() {
    let schema = Retention::of_schema();
    let said = |changed: Retention| changed.or(&schema).validate().unwrap_err().to_string();
    let none = Retention::default;
    let cases = [
        (Retention { flows: days(91), ..none() }, ["--retain-minutes", "--retain-flows"]),
        (Retention { hours: days(80), ..none() }, ["--retain-hours", "--retain-minutes"]),
        (Retention { coverage: days(10), ..none() }, ["--retain-coverage", "audit"]),
        (Retention { deliveries: days(10), ..none() }, ["--retain-deliveries", "audit"]),
        (Retention { deliveries: days(7), ..none() }, ["--retain-deliveries", "8d or more"]),
        (Retention { identities: days(1), ..none() }, ["--retain-identities", "8d or more"]),
        (
            Retention { flows: Some(Duration::from_secs(3_600)), ..none() },
            ["--retain-flows", "1d or more"],
        ),
        (Retention { hours: Some(Duration::MAX), ..none() }, ["--retain-hours", "50y or less"]),
    ];
    for (changed, expected) in cases {
        let said = said(changed);
        assert!(expected.iter().all(|text| said.contains(text)), "{said}");
    }
    assert_eq!(none().validate(), Ok(()));
}
