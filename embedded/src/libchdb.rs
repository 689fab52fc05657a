//! The C functions of libchdb that Flowtrail uses, behind types that cannot be misused: all of this
//! crate's unsafe code. The contract of each function is in chdb-core's `programs/local/chdb.h`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// `chdb_connection *`, what `chdb_connect` returns.
type ConnectionSlot = *mut RawConnection;
/// `chdb_connection`.
type RawConnection = *mut c_void;
/// `chdb_result *`.
type RawResult = *mut c_void;
/// `chdb_insert_stream`.
type RawInsert = *mut c_void;
/// `chdb_state`: 0 is success.
type State = c_int;

/// Statement, format and parameters, each with its length.
type WithParameters<T> = unsafe extern "C" fn(
    RawConnection,
    *const c_char,
    usize,
    *const c_char,
    usize,
    *const *const c_char,
    *const usize,
    *const *const c_char,
    *const usize,
    usize,
) -> T;

unsafe extern "C" {
    /// glibc's: registers a function to be called, with the status, when the process exits.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    /// POSIX: ends the process at once.
    fn _exit(status: c_int) -> !;
}

/// Some thread of the engine may be alive: from the first connection until a shutdown that says
/// that all of them have ended. With a table opened it never does: threads of idle pools remain.
static THREADS: AtomicBool = AtomicBool::new(false);

/// The library's functions. Loaded once and never unloaded: its threads would lose their code.
pub(crate) struct Library {
    version: unsafe extern "C" fn() -> *const c_char,
    set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> ConnectionSlot,
    close_conn: unsafe extern "C" fn(ConnectionSlot),
    query: WithParameters<RawResult>,
    stream_insert: WithParameters<RawInsert>,
    stream_append: unsafe extern "C" fn(RawInsert, *const c_void, usize) -> State,
    stream_done: unsafe extern "C" fn(RawInsert) -> RawResult,
    stream_insert_error: unsafe extern "C" fn(RawInsert) -> *const c_char,
    destroy_insert_stream: unsafe extern "C" fn(RawInsert),
    destroy_query_result: unsafe extern "C" fn(RawResult),
    result_buffer: unsafe extern "C" fn(RawResult) -> *const c_char,
    result_length: unsafe extern "C" fn(RawResult) -> usize,
    result_error: unsafe extern "C" fn(RawResult) -> *const c_char,
    result_elapsed: unsafe extern "C" fn(RawResult) -> f64,
    result_rows_read: unsafe extern "C" fn(RawResult) -> u64,
    result_bytes_read: unsafe extern "C" fn(RawResult) -> u64,
    result_rows_written: unsafe extern "C" fn(RawResult) -> u64,
    result_bytes_written: unsafe extern "C" fn(RawResult) -> u64,
    shutdown: unsafe extern "C" fn() -> State,
}

/// What a statement gave back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The result in the format asked for.
    pub(crate) data: Vec<u8>,
    /// Seconds.
    pub(crate) elapsed: f64,
    pub(crate) rows_read: u64,
    pub(crate) bytes_read: u64,
    /// Rows written, those of materialized views included.
    pub(crate) rows_written: u64,
    pub(crate) bytes_written: u64,
}

/// Values for the `{name:Type}` placeholders of a statement, in ClickHouse's escaped text form.
pub(crate) type Parameters = [(String, String)];

impl Library {
    /// Loads the library.
    ///
    /// # Errors
    /// If the file is no such library, or one without a function that is needed.
    pub(crate) fn load(path: &Path) -> Result<&'static Self, libloading::Error> {
        // SAFETY: loading runs the library's initialisers. The file is what the operator named as
        // the engine, and is trusted as the program itself is.
        let library = unsafe { libloading::Library::new(path)? };
        // SAFETY: the signatures are those of chdb.h; the library stays loaded (see below).
        let functions = unsafe {
            Self {
                version: *library.get(b"chdb_version\0")?,
                set_signal_handlers_enabled: *library.get(b"chdb_set_signal_handlers_enabled\0")?,
                connect: *library.get(b"chdb_connect\0")?,
                close_conn: *library.get(b"chdb_close_conn\0")?,
                query: *library.get(b"chdb_query_with_params_n\0")?,
                stream_insert: *library.get(b"chdb_stream_insert_with_params_n\0")?,
                stream_append: *library.get(b"chdb_stream_append\0")?,
                stream_done: *library.get(b"chdb_stream_done\0")?,
                stream_insert_error: *library.get(b"chdb_stream_insert_error\0")?,
                destroy_insert_stream: *library.get(b"chdb_destroy_insert_stream\0")?,
                destroy_query_result: *library.get(b"chdb_destroy_query_result\0")?,
                result_buffer: *library.get(b"chdb_result_buffer\0")?,
                result_length: *library.get(b"chdb_result_length\0")?,
                result_error: *library.get(b"chdb_result_error\0")?,
                result_elapsed: *library.get(b"chdb_result_elapsed\0")?,
                result_rows_read: *library.get(b"chdb_result_rows_read\0")?,
                result_bytes_read: *library.get(b"chdb_result_bytes_read\0")?,
                result_rows_written: *library.get(b"chdb_result_rows_written\0")?,
                result_bytes_written: *library.get(b"chdb_result_bytes_written\0")?,
                shutdown: *library.get(b"chdb_shutdown\0")?,
            }
        };
        std::mem::forget(library);
        Ok(Box::leak(Box::new(functions)))
    }

    /// The library's version, like `26.7.3`.
    pub(crate) fn version(&self) -> String {
        // SAFETY: takes nothing, returns a constant string.
        text(unsafe { (self.version)() }).unwrap_or_default()
    }

    /// Keeps the library's hands off the process's signal handlers. Before the first connection.
    pub(crate) fn disable_signal_handlers(&self) {
        // SAFETY: sets a flag.
        unsafe { (self.set_signal_handlers_enabled)(0) }
    }

    /// Opens a connection; the first one starts the engine. `None` if the engine refuses: it gives
    /// no reason. An argument with a NUL byte is refused too.
    pub(crate) fn connect(&'static self, arguments: &[String]) -> Option<Connection> {
        let arguments: Vec<CString> = std::iter::once("flowtrail")
            .chain(arguments.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()
            .ok()?;
        let mut pointers: Vec<*mut c_char> =
            arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `count` NUL-terminated strings that outlive the call; they are only read.
        let slot = NonNull::new(unsafe { (self.connect)(count, pointers.as_mut_ptr()) })?;
        THREADS.store(true, Ordering::SeqCst);
        static EXIT: Once = Once::new();
        // SAFETY: the function is this program's own and lives as long. The library registers its
        // exit functions on loading and on the first connection; the last registered is called
        // first, so this is.
        EXIT.call_once(|| unsafe {
            on_exit(leave_engine_threads, std::ptr::null_mut());
        });
        Some(Connection { library: self, slot })
    }

    /// Stops the engine for the rest of the process. False while a connection is open, or if a
    /// thread of the engine did not end.
    pub(crate) fn shutdown(&self) -> bool {
        // SAFETY: safe from any thread; refuses by itself while a connection is open.
        let ended = unsafe { (self.shutdown)() == 0 };
        THREADS.store(!ended, Ordering::SeqCst);
        ended
    }

    /// Takes a result over and frees it.
    fn outcome(&self, result: RawResult) -> Result<Outcome, String> {
        if result.is_null() {
            return Err("the engine gave no result".to_owned());
        }
        // SAFETY: `result` is live until destroyed at the end; buffer and error belong to it and
        // are copied before.
        unsafe {
            let outcome = match text((self.result_error)(result)) {
                Some(error) => Err(error),
                None => Ok(Outcome {
                    data: bytes((self.result_buffer)(result), (self.result_length)(result)),
                    elapsed: (self.result_elapsed)(result),
                    rows_read: (self.result_rows_read)(result),
                    bytes_read: (self.result_bytes_read)(result),
                    rows_written: (self.result_rows_written)(result),
                    bytes_written: (self.result_bytes_written)(result),
                }),
            };
            (self.destroy_query_result)(result);
            outcome
        }
    }
}

/// One session of the engine, closed when dropped. `&mut`: it runs one statement at a time.
pub(crate) struct Connection {
    library: &'static Library,
    slot: NonNull<RawConnection>,
}

// SAFETY: the engine binds nothing to the thread that connected; calls on a connection must only
// not overlap, which `&mut self` ensures.
unsafe impl Send for Connection {}

impl Connection {
    /// Runs a statement to its end. Blocks.
    ///
    /// # Errors
    /// The engine's message, starting with `Code: N. DB::Exception:`.
    pub(crate) fn query(
        &mut self,
        statement: &str,
        format: &str,
        parameters: &Parameters,
    ) -> Result<Outcome, String> {
        let result = self.call(self.library.query, statement, format, parameters);
        self.library.outcome(result)
    }

    /// Begins an INSERT whose rows follow in pieces. The statement is without FORMAT clause.
    ///
    /// # Errors
    /// The engine's message, as with [`Connection::query`].
    pub(crate) fn insert(
        &mut self,
        statement: &str,
        format: &str,
        parameters: &Parameters,
    ) -> Result<InsertStream<'_>, String> {
        let raw = self.call(self.library.stream_insert, statement, format, parameters);
        let stream = InsertStream { library: self.library, raw, connection: PhantomData };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn call<T>(
        &self,
        function: WithParameters<T>,
        statement: &str,
        format: &str,
        parameters: &Parameters,
    ) -> T {
        let pointers = |of: fn(&(String, String)) -> &String| -> (Vec<_>, Vec<_>) {
            parameters
                .iter()
                .map(|parameter| (of(parameter).as_ptr().cast::<c_char>(), of(parameter).len()))
                .unzip()
        };
        let (names, name_lengths) = pointers(|parameter| &parameter.0);
        let (values, value_lengths) = pointers(|parameter| &parameter.1);
        // SAFETY: the slot holds a live connection until dropped; every pointer is to as many
        // bytes as its length says, read only during the call.
        unsafe {
            function(
                *self.slot.as_ptr(),
                statement.as_ptr().cast(),
                statement.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: came from `connect`, closed only here; insert streams borrow the connection, so
        // none is left.
        unsafe { (self.library.close_conn)(self.slot.as_ptr()) }
    }
}

/// An INSERT under way. Dropped before it is finished, it is cancelled.
pub(crate) struct InsertStream<'connection> {
    library: &'static Library,
    raw: RawInsert,
    connection: PhantomData<&'connection mut Connection>,
}

impl InsertStream<'_> {
    /// Adds a piece of data, cut anywhere. Blocks while the engine is behind.
    ///
    /// # Errors
    /// The engine's message, if the rows so far failed.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), String> {
        // SAFETY: the stream is live; the data is copied.
        let state =
            unsafe { (self.library.stream_append)(self.raw, data.as_ptr().cast(), data.len()) };
        if state == 0 { Ok(()) } else { Err(self.failure()) }
    }

    /// Ends the data and waits until the rows are in the table.
    ///
    /// # Errors
    /// The engine's message.
    pub(crate) fn finish(self) -> Result<Outcome, String> {
        // SAFETY: the stream is live; the result is taken over, the stream freed by drop.
        let result = unsafe { (self.library.stream_done)(self.raw) };
        self.library.outcome(result)
    }

    fn error(&self) -> Option<String> {
        // SAFETY: the stream is live; the string belongs to it and is copied.
        text(unsafe { (self.library.stream_insert_error)(self.raw) })
    }

    fn failure(&self) -> String {
        self.error().unwrap_or_else(|| "the engine refused the data".to_owned())
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        // SAFETY: every handle is to be destroyed once, also after errors; cancels by itself if
        // the stream is not finished.
        unsafe { (self.library.destroy_insert_stream)(self.raw) }
    }
}

/// On an exit while a thread of the engine is alive, skips the library's exit functions: they would
/// free what it still uses, and a crash would hide the status. What was inserted is on disk.
extern "C" fn leave_engine_threads(status: c_int, _: *mut c_void) {
    if THREADS.load(Ordering::SeqCst) {
        // SAFETY: ends the process; nothing of it runs on.
        unsafe { _exit(status) }
    }
}

/// A copy of a C string; `None` for a null pointer.
fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the library's strings are NUL-terminated and live while their owner does.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// A copy of a buffer; empty for a null pointer.
fn bytes(pointer: *const c_char, length: usize) -> Vec<u8> {
    if pointer.is_null() {
        return Vec::new();
    }
    // SAFETY: the result's buffer holds `length` bytes and lives while the result does.
    unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }.to_vec()
}
