//! The OpenAPI document, and answers held against it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use hyper::Method;
use orlop_api::BASE;
use orlop_client::{Answer, Body, Client};
use serde_json::{Value, json};

/// The document that a process serves, and which of its answers were seen.
pub struct Document {
    json: Value,
    seen: RefCell<BTreeSet<String>>,
}

impl Document {
    /// Fetches it.
    pub async fn of(client: &Client) -> Self {
        let json = client.openapi().await.expect("the document is served");
        Self { json, seen: RefCell::default() }
    }

    /// Sends a request and holds the answer against the description of `template`; returns its JSON.
    pub async fn ask(
        &self,
        client: &Client,
        request: (Method, &str),
        body: Option<&str>,
        status: u16,
    ) -> Value {
        let body =
            body.map(|body| Body { bytes: body.as_bytes().to_vec(), content_type: "application/json" });
        self.ask_with(client, request, body, status).await
    }

    /// The same with any kind of body.
    pub async fn ask_with(
        &self,
        client: &Client,
        (method, path): (Method, &str),
        body: Option<Body>,
        status: u16,
    ) -> Value {
        let answer = client.request(method.clone(), path, body).await.expect("it answers");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{method} {path}: {text}");
        self.check(&method, path, &answer)
    }

    /// Holds `answer` against the description of its request.
    pub fn check(&self, method: &Method, path: &str, answer: &Answer) -> Value {
        let template = self.template(path);
        let status = answer.status.as_u16().to_string();
        let responses = &self.json["paths"][&template][method.as_str().to_lowercase()]["responses"];
        let described = match &responses[&status] {
            Value::Null => &responses["default"],
            described => described,
        };
        assert!(described.is_object(), "{method} {template} does not describe {status}");
        self.seen.borrow_mut().insert(format!("{method} {template} {status}"));
        let Some(content) = described.get("content").and_then(Value::as_object) else {
            assert!(answer.body.is_empty(), "{method} {template} {status} should have no body");
            return Value::Null;
        };
        let media = content.get(&answer.content_type);
        let media =
            media.unwrap_or_else(|| panic!("{method} {template} {status}: type {}", answer.content_type));
        if !answer.content_type.ends_with("json") {
            return Value::Null;
        }
        let value: Value = answer.json().expect("JSON, as its type says");
        self.validate(&media["schema"], &value, &format!("{method} {template} {status}"));
        value
    }

    /// Holds `value` against one of the document's schemas by name.
    pub fn check_named(&self, name: &str, value: &Value) {
        self.validate(&json!({ "$ref": format!("#/components/schemas/{name}") }), value, name);
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.json["components"],
            "allOf": [schema],
        });
        let validator = jsonschema::validator_for(&schema).expect("the document's schemas are schemas");
        let errors: Vec<String> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:?} in {value:#}");
    }

    /// Notes an answer that was seen by other means.
    pub fn note(&self, method: Method, path: &str, status: u16) {
        self.seen.borrow_mut().insert(format!("{method} {} {status}", self.template(path)));
    }

    /// Every answer that the document describes and that was not seen, `default` ones aside.
    pub fn unseen(&self) -> Vec<String> {
        let mut unseen = Vec::new();
        for (template, methods) in self.json["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("operations") {
                for status in operation["responses"].as_object().expect("responses").keys() {
                    let name = format!("{} {template} {status}", method.to_uppercase());
                    if status != "default" && !self.seen.borrow().contains(&name) {
                        unseen.push(name);
                    }
                }
            }
        }
        unseen
    }

    /// The document's path that `path` below the base matches.
    fn template(&self, path: &str) -> String {
        let path = path.split('?').next().unwrap_or_default();
        let path = format!("{BASE}{path}");
        let segments: Vec<&str> = path.split('/').collect();
        let matches = |template: &str| {
            let parts: Vec<&str> = template.split('/').collect();
            let same = |(part, segment): (&&str, &&str)| part == segment || part.starts_with('{');
            parts.len() == segments.len() && parts.iter().zip(&segments).all(same)
        };
        let paths = self.json["paths"].as_object().expect("paths");
        let template = paths.keys().find(|template| matches(template));
        template.unwrap_or_else(|| panic!("{path} is not described")).clone()
    }
}
