//! The id that Kafka gives a topic when it is made: offsets are that topic's own, not those of
//! another that had its name.
//!
//! librdkafka asks for it with DescribeTopics, for which the rdkafka crate has no call; so this file
//! makes that one call itself, and is the only one of this crate with `unsafe`.
#![allow(unsafe_code, reason = "see above: one call of librdkafka's C interface")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::bindings::*;
use rdkafka::client::{Client, ClientContext};

/// Kafka's id of the topic, 22 characters of base64. `None` if the broker does not tell (before
/// Kafka 2.8), there is no such topic, or no answer comes in time. Blocks.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    name: &str,
    timeout: Duration,
) -> Option<String> {
    let name = CString::new(name).ok()?;
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    let handle = client.native_ptr();
    // SAFETY: the handle is of a live client, which is borrowed. Constructors of librdkafka (rdkafka.h)
    // do not fail for valid arguments; what they return is destroyed once, by the owners below, after
    // its last use. `error` outlives the call that may write to it.
    let (queue, options) = unsafe {
        let queue = Owned::new(rd_kafka_queue_new(handle), rd_kafka_queue_destroy)?;
        let operation = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = rd_kafka_AdminOptions_new(handle, operation);
        let options = Owned::new(options, rd_kafka_AdminOptions_destroy)?;
        let mut error = [0 as c_char; 256];
        rd_kafka_AdminOptions_set_request_timeout(
            options.pointer(),
            timeout_ms,
            error.as_mut_ptr(),
            error.len(),
        );
        (queue, options)
    };
    // SAFETY: as above; the names are copied by the call that takes them, and the event, once there,
    // is this function's own.
    let event = unsafe {
        let mut names = [name.as_ptr()];
        let topics = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, rd_kafka_TopicCollection_destroy)?;
        rd_kafka_DescribeTopics(handle, topics.pointer(), options.pointer(), queue.pointer());
        Owned::new(rd_kafka_queue_poll(queue.pointer(), timeout_ms), rd_kafka_event_destroy)?
    };
    // SAFETY: the result, the descriptions in it and their ids live as long as the event; each pointer
    // is checked for null. librdkafka returns `count` descriptions, and the text ends with a null.
    unsafe {
        let result = rd_kafka_event_DescribeTopics_result(event.pointer());
        let failed = rd_kafka_event_error(event.pointer())
            != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if result.is_null() || failed {
            return None;
        }
        let mut count = 0;
        let topics = rd_kafka_DescribeTopics_result_topics(result, ptr::from_mut(&mut count));
        if topics.is_null() || count != 1 {
            return None;
        }
        let id = rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() || is_zero(id) {
            return None;
        }
        let text = rd_kafka_Uuid_base64str(id);
        if text.is_null() {
            return None;
        }
        Some(CStr::from_ptr(text).to_str().ok()?.to_owned())
    }
}

/// A broker that knows no ids answers with this one.
///
/// # Safety
/// The pointer is valid.
unsafe fn is_zero(id: *const rd_kafka_Uuid_t) -> bool {
    // SAFETY: as the caller vouches.
    unsafe {
        rd_kafka_Uuid_most_significant_bits(id) == 0
            && rd_kafka_Uuid_least_significant_bits(id) == 0
    }
}

/// An object of librdkafka's, destroyed when dropped.
struct Owned<T> {
    object: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// # Safety
    /// Nobody else destroys the object, and `destroy` is its destructor.
    unsafe fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(object).map(|object| Self { object, destroy })
    }

    fn pointer(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: see `new`.
        unsafe { (self.destroy)(self.object.as_ptr()) }
    }
}
