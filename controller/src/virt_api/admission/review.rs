//! `AdmissionReview` of `admission.k8s.io/v1`, as far as it is read and written here.

use data_encoding::BASE64;
use orlop_crd::admission::Cause;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A question of the API server, or the answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    api_version: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
}

/// Why a question is none.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is not JSON of the right shape.
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// It is another version.
    #[error("this is {0}, not {API_VERSION}")]
    Version(String),
    /// Nothing is asked.
    #[error("an AdmissionReview without a request")]
    Empty,
}

/// What is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// Names the question.
    pub uid: String,
    /// `status` and the like, or empty.
    pub sub_resource: String,
    /// Namespace of the object, empty for one of the cluster.
    pub namespace: String,
    /// `CREATE`, `UPDATE`.
    pub operation: String,
    /// Who writes.
    pub user_info: UserInfo,
    /// As it would be stored.
    pub object: Value,
    /// As it is stored.
    pub old_object: Value,
}

/// Who writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserInfo {
    /// The name, `system:serviceaccount:NAMESPACE:NAME` for a service account.
    pub username: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It may be; the authors should know these things.
    Allowed(Vec<String>),
    /// It may be, and is to look like this.
    Patched(Value),
    /// It may not be.
    Refused(Vec<Cause>),
    /// That could not be found out.
    Failed(String),
}

impl Request {
    /// Whether the object is on its way out, so that only its finalizers matter.
    pub fn is_deleted(&self) -> bool {
        self.object.pointer("/metadata/deletionTimestamp").is_some_and(|timestamp| !timestamp.is_null())
    }
}

impl Review {
    /// The question in a request's body.
    pub fn request(body: &[u8]) -> Result<Request, ReviewError> {
        let review: Self = serde_json::from_slice(body)?;
        if review.api_version != API_VERSION || review.kind != KIND {
            return Err(ReviewError::Version(format!("{} {}", review.api_version, review.kind)));
        }
        review.request.ok_or(ReviewError::Empty)
    }

    /// The answer to the question `uid`. `original` is the object that a patch is for.
    pub fn response(uid: String, original: &Value, answer: Answer) -> Self {
        let response = match answer {
            Answer::Allowed(warnings) => json!({ "uid": uid, "allowed": true, "warnings": warnings }),
            Answer::Patched(object) => patched(uid, original, &object),
            Answer::Refused(causes) => json!({ "uid": uid, "allowed": false, "status": refusal(&causes) }),
            Answer::Failed(message) => json!({
                "uid": uid,
                "allowed": false,
                "status": { "code": 500, "reason": "InternalError", "message": message },
            }),
        };
        Self { api_version: API_VERSION.into(), kind: KIND.into(), request: None, response: Some(response) }
    }
}

fn patched(uid: String, original: &Value, object: &Value) -> Value {
    let patch = json_patch::diff(original, object);
    if patch.0.is_empty() {
        return json!({ "uid": uid, "allowed": true });
    }
    let patch = serde_json::to_vec(&patch).unwrap_or_default();
    json!({ "uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": BASE64.encode(&patch) })
}

/// A `Status` as KubeVirt answers: code 422, all messages in one, and each cause by itself.
fn refusal(causes: &[Cause]) -> Value {
    let message: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
    json!({
        "code": 422,
        "reason": "Invalid",
        "message": message.join(", "),
        "details": { "causes": causes },
    })
}

#[cfg(test)]
mod tests {
    use orlop_crd::admission::CauseType;

    use super::*;

    #[test]
    fn what_is_no_question_is_said_to_be_none() {
        for (body, said) in [
            ("", "not an AdmissionReview"),
            ("{}", "not an AdmissionReview"),
            (r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#, "v1beta1"),
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "without a request"),
        ] {
            let error = Review::request(body.as_bytes()).expect_err(body).to_string();
            assert!(error.contains(said), "{body}: {error}");
        }
    }

    #[test]
    fn a_refusal_names_every_cause() {
        let cause = |message: &str| Cause {
            reason: CauseType::Invalid,
            message: message.to_owned(),
            field: "spec.domain".to_owned(),
        };
        let review =
            Review::response("7".into(), &Value::Null, Answer::Refused(vec![cause("a"), cause("b")]));
        let response = review.response.expect("an answer");
        assert_eq!(response["uid"], "7");
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 422);
        assert_eq!(response["status"]["message"], "a, b");
        assert_eq!(response["status"]["details"]["causes"][1]["message"], "b");
        assert_eq!(response["status"]["details"]["causes"][0]["reason"], "FieldValueInvalid");
    }

    #[test]
    fn a_patch_turns_the_original_into_the_object() {
        let (original, object) = (json!({ "a": 1, "b": [1] }), json!({ "a": 2, "b": [1, 2], "c": {} }));
        let review = Review::response("7".into(), &original, Answer::Patched(object.clone()));
        let patch = review.response.expect("an answer")["patch"].as_str().expect("a patch").to_owned();
        let patch: json_patch::Patch =
            serde_json::from_slice(&BASE64.decode(patch.as_bytes()).expect("base64")).expect("JSON");
        let mut result = original;
        json_patch::patch(&mut result, &patch).expect("it fits");
        assert_eq!(result, object);
    }
}
