//! Decoding that one bad object does not stop: kube decodes a list, and the line of an event, as a whole.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Kind, Named, Object};

/// An object that could not be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its kind.
    pub kind: Kind,
    /// Its name, namespace, uid and version, as far as they are texts.
    pub metadata: ObjectMeta,
    /// What is wrong with it.
    pub error: String,
}

/// An object, or why it is none. Decoding it fails only for what is no JSON.
#[derive(Clone, Debug)]
pub struct Decoded<K>(Result<K, Unreadable>);

impl<'de, K: Named> Deserialize<'de> for Decoded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self(K::deserialize(&value).map_err(|error| {
            let metadata = value.get("metadata").unwrap_or(&Value::Null);
            let text = |field| metadata.get(field).and_then(Value::as_str).map(str::to_owned);
            Unreadable {
                kind: K::KIND,
                metadata: ObjectMeta {
                    name: text("name"),
                    namespace: text("namespace"),
                    uid: text("uid"),
                    resource_version: text("resourceVersion"),
                    ..ObjectMeta::default()
                },
                error: error.to_string(),
            }
        })))
    }
}

impl<K: Named> From<Decoded<K>> for Object {
    fn from(Decoded(decoded): Decoded<K>) -> Self {
        decoded.map_or_else(Self::Unreadable, Into::into)
    }
}

impl<K: Named + kube::Resource> kube::Resource for Decoded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }
    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }
    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }
    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }
    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}
