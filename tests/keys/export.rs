use std::sync::Arc;

use keyward::{
    AuditEvent, AuditQuery, ErrorKind, MemoryStore, NewKey, OwnerScope, audit::ExportFormat,
    manage::AuditExport,
};
use serde_json::{Value, json};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{Service, hostile, on_each_store, owner, stores},
};

const FORMATS: [ExportFormat; 2] = [ExportFormat::JsonLines, ExportFormat::Csv];

async fn pages(mut export: AuditExport) -> Vec<String> {
    let mut pages = Vec::new();
    while let Some(page) = export.next_page().await.unwrap() {
        pages.push(page);
    }
    pages
}

/// Parses an export and returns the fields of each event as text.
fn parsed(format: ExportFormat, text: &str) -> Vec<Vec<String>> {
    match format {
        ExportFormat::JsonLines => text.lines().map(fields_of_line).collect(),
        _ => {
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            assert_eq!(reader.headers().unwrap(), &NAMES[..]);
            reader.records().map(|row| row.unwrap().iter().map(unescaped).collect()).collect()
        }
    }
}

fn fields_of_line(line: &str) -> Vec<String> {
    let object: Value = serde_json::from_str(line).unwrap();
    assert_eq!(object.as_object().unwrap().len(), NAMES.len());
    let text = |name: &&str| match &object[*name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        number => number.to_string(),
    };
    NAMES.iter().map(text).collect()
}

/// Asserts that a cell cannot be a formula in a spreadsheet, and returns it without its escape.
pub fn unescaped(cell: &str) -> String {
    let seen =
        cell.trim_start_matches(|c: char| c.is_whitespace() || "\u{feff}\u{200b}".contains(c));
    assert!(!seen.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{cell:?}");
    assert!(!cell.starts_with(['\t', '\r', '\n']), "{cell:?}");
    assert!(cell.chars().all(is_plain), "{cell:?}");
    let mut text = String::new();
    let mut rest = cell.strip_prefix('\'').unwrap_or(cell);
    while let Some((before, after)) = rest.split_once("\\u{") {
        let (code, after) = after.split_once('}').unwrap();
        let code = u32::from_str_radix(code, 16).unwrap();
        text.extend([before, &char::from_u32(code).unwrap().to_string()]);
        rest = after;
    }
    text + rest
}

/// Whether a character acts on no terminal and reorders or hides no text.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        && !matches!(c, '\u{e0000}'..='\u{e0fff}')
}

fn expected(event: &AuditEvent) -> Vec<String> {
    let AuditEvent { id, at, kind, outcome, actor, count, .. } = event.clone();
    vec![
        id.to_string(),
        at.to_string(),
        kind.to_string(),
        outcome.to_string(),
        event.account.clone().unwrap_or_default(),
        event.key_id.map(|id| id.to_string()).unwrap_or_default(),
        actor,
        event.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        event.user_agent.clone().unwrap_or_default(),
        event.reason.clone().unwrap_or_default(),
        count.to_string(),
    ]
}

#[tokio::test]
async fn five_hundred_hostile_names_are_exported_unchanged_and_escaped() {
    let service = Service::new(stores::memory());
    let keys = service.keys();
    let names = hostile::for_tables();
    assert_eq!(names.len(), 500);
    for name in &names {
        let by = keyward::model::Actor::account(name).user_agent(name);
        let evil = owner("acme", name);
        let issued = keys.issue(NewKey::new(&evil, "x").unwrap(), &by).await.unwrap();
        keys.revoke(&evil, issued.key.id, name, &by).await.unwrap();
    }
    let query = AuditQuery::new(OwnerScope::Tenant("acme"));
    let events = keys.events(query.limit(1_000)).await.unwrap();
    assert_eq!(events.len(), 1_000);
    let stored: Vec<_> = events.iter().map(expected).collect();
    for format in FORMATS {
        let text = pages(keys.export(query.limit(64), format)).await.concat();
        assert_eq!(parsed(format, &text), stored, "{format:?}");
        let header = usize::from(format == ExportFormat::Csv);
        assert_eq!(text.lines().count(), 1_000 + header, "each event is one line");
        for line in text.lines() {
            assert!(line.chars().all(is_plain), "{format:?}: {line:?}");
        }
    }
}

#[tokio::test]
async fn text_that_looks_like_an_escape_is_restored_too() {
    let service = Service::new(stores::memory());
    let reasons = [
        r"\u{202e}",
        r"\u{5c}u{41}",
        r"\\u{41}",
        "\\\u{202e}",
        r"ACME\ada",
        r"\u",
        r"\u202e",
        r"'\u{9}=1",
        "\t=1",
        "\u{e0041}\u{9b}31m\u{2028}\u{e01ef}",
    ];
    for reason in reasons {
        let issued = service.issue().await;
        let keys = service.keys();
        keys.revoke(&service.owner, issued.key.id, reason, &service.actor).await.unwrap();
    }
    let mut query = AuditQuery::new(&service.owner);
    query.kind = Some(keyward::audit::EventKind::Revoked);
    let stored = service.keys().events(query).await.unwrap();
    let stored: Vec<_> = stored.iter().map(expected).collect();
    assert_eq!(stored.len(), reasons.len());
    for format in FORMATS {
        let text = pages(service.keys().export(query, format)).await.concat();
        assert_eq!(parsed(format, &text), stored, "{format:?}");
        let is_as_written = |text: &str| text.contains(r"ACME\ada");
        assert_eq!(is_as_written(&text), format == ExportFormat::Csv);
    }
}

#[tokio::test]
async fn an_export_has_each_event_once_in_pages() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada) = (service.keys(), &service.owner);
        let bob = owner("acme", "bob");
        for _ in 0..5 {
            let _ = service.issue().await;
            let _ = keys.issue(NewKey::new(&bob, "b").unwrap(), &service.actor).await.unwrap();
        }
        keys.revoke_all(ada, "left", &service.actor).await.unwrap();
        for (format, limit, lines) in [
            (ExportFormat::JsonLines, 4, vec![4, 4, 2]),
            (ExportFormat::Csv, 4, vec![5, 4, 3]),
            (ExportFormat::JsonLines, 6, vec![6, 6]),
            (ExportFormat::JsonLines, 100, vec![13]),
        ] {
            let stored = keys.events(AuditQuery::new(ada)).await.unwrap();
            let stored: Vec<_> = stored.iter().map(expected).collect();
            let mut export = keys.export(AuditQuery::new(ada).limit(limit), format);
            let first = export.next_page().await.unwrap().unwrap();
            let _ = service.issue().await;
            let read = [vec![first], pages(export).await].concat();
            let counted: Vec<_> = read.iter().map(|page| page.lines().count()).collect();
            assert_eq!(counted, lines, "{format:?} by {limit}");
            assert_eq!(parsed(format, &read.concat()), stored, "{format:?} by {limit}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_export_has_only_the_header() {
    let service = Service::new(stores::memory());
    let export = |format| service.keys().export(AuditQuery::new(&service.owner), format);
    assert_eq!(pages(export(ExportFormat::JsonLines)).await, [""; 0]);
    assert_eq!(pages(export(ExportFormat::Csv)).await, [format!("{}\r\n", NAMES.join(","))]);
}

#[tokio::test]
async fn an_export_continues_with_the_same_page_after_a_store_failure() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let service = Service::new(vec![Arc::new(store.clone())]);
    for _ in 0..5 {
        let _ = service.issue().await;
    }
    let stored = service.keys().events(AuditQuery::new(&service.owner)).await.unwrap();
    for format in FORMATS {
        let mut export = service.keys().export(AuditQuery::new(&service.owner).limit(2), format);
        let mut read = String::new();
        for _ in 0..3 {
            store.allow_audit_reads(0);
            let failed = export.next_page().await.unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::Unavailable);
            store.allow_audit_reads(1);
            read += &export.next_page().await.unwrap().unwrap();
        }
        assert_eq!(export.next_page().await.unwrap(), None);
        store.allow_audit_reads(usize::MAX);
        let stored: Vec<_> = stored.iter().map(expected).collect();
        assert_eq!(parsed(format, &read), stored, "{format:?}");
    }
}

#[tokio::test]
async fn a_json_line_uses_the_field_names_of_the_management_api_and_null_for_unknown_values() {
    let service = Service::new(stores::memory());
    let by = keyward::model::Actor::system("import");
    let issued = service.keys().issue(service.new_key(), &by).await.unwrap();
    let export = service.keys().export(AuditQuery::new(&service.owner), ExportFormat::JsonLines);
    let line: Value = serde_json::from_str(&pages(export).await.concat()).unwrap();
    let expected = json!({
        "id": line["id"], "time": "2026-01-01T00:00:00.000Z", "event": "key.created",
        "result": "success", "account": "ada", "keyId": issued.key.id.to_string(),
        "actor": "system:import", "ip": null, "userAgent": null, "reason": null, "count": 1,
    });
    assert_eq!(line, expected);
}

const NAMES: [&str; 11] = [
    "id",
    "time",
    "event",
    "result",
    "account",
    "keyId",
    "actor",
    "ip",
    "userAgent",
    "reason",
    "count",
];
