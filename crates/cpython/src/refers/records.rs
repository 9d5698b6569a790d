//! Which fields of C structures hold objects, as data: type name, structure, fields.
//!
//! A field is `path`, `path=label` where a person knows it by another name, `~path` where it does not
//! keep its object alive, `path[]` for `ob_size` pointers, `path[n]` for n of them, `path[field]` for as
//! many as a field of the structure says, `path!other` only where there is no other field, `path?flag` where a
//! byte of the object says so, `path[pairs]` for `ob_size` pointers that are keys and values by turns,
//! `path[links]` for a chain of objects that ends where it began, `path[ring]` for a ring buffer (`RingBuf`, `_queuemodule.c`). Fields a version does not have are left out there. The dict
//! at `tp_dictoffset` is nobody's field: every type has it alike (`instances.rs`).

use super::Strength;
use crate::layout::Table;

/// Pointers at a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Many {
    One,
    /// As many as `ob_size` says.
    Sized,
    /// As many as `ob_size` says, a key before each value; before a node that holds more of them, none.
    Pairs,
    Fixed(u32),
    /// As many as the 32-bit field at this offset says.
    CountAt(u32),
    /// The field points to a ring: offsets of its first position, its room and its length.
    Ring([u32; 3]),
    /// Of a chain of objects that ends at this one.
    Links,
}

/// A field that holds objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub offset: u32,
    pub label: &'static str,
    pub strength: Strength,
    pub many: Many,
    /// Offset of a byte that says whether the field is there: not all instances have room for it.
    pub when: Option<u32>,
}

/// A structure whose every reference is known.
struct Record {
    /// `tp_name`s, separated by `|`.
    names: &'static str,
    /// The structure, whose size `tp_basicsize` must have; none: a type that has no references.
    of: &'static str,
    fields: &'static str,
}

/// Position in the list of records, counted from 1; 0 is no record.
pub type RecordId = u16;

macro_rules! records {
    ($($names:literal $of:literal [$($fields:literal)?])*) => {
        const RECORDS: &[Record] = &[$(Record { names: $names, of: $of, fields: concat!($($fields)?) }),*];
    };
}

records! {
    // functions and what is bound
    "function" "PyFunctionObject" ["func_code=__code__ func_globals=__globals__ func_builtins=__builtins__
        func_defaults=__defaults__ func_kwdefaults=__kwdefaults__ func_closure=__closure__ func_doc=__doc__
        func_name=__name__ func_qualname=__qualname__ func_module=__module__
        func_annotations=__annotations__ func_annotate=__annotate__ func_typeparams=__type_params__"]
    "cell" "PyCellObject" ["ob_ref=cell_contents"]
    "code" "PyCodeObject" ["co_code co_consts co_names co_varnames co_freevars co_cellvars co_filename
        co_name co_qualname co_lnotab co_linetable co_exceptiontable co_localsplusnames co_localspluskinds
        _co_code=co_code"]
    "method|instancemethod" "PyMethodObject" ["im_func=__func__ im_self=__self__ im_class"]
    "instancemethod" "PyInstanceMethodObject" ["func=__func__"]
    "builtin_function_or_method" "PyCFunctionObject" ["m_self=__self__ m_module=__module__"]
    "builtin_method" "PyCMethodObject" ["func.m_self=__self__ func.m_module=__module__ mm_class"]
    "property" "propertyobject" ["prop_get=fget prop_set=fset prop_del=fdel prop_doc=__doc__
        prop_name=__name__"]
    "classmethod" "classmethod" ["cm_callable=__func__"]
    "staticmethod" "staticmethod" ["sm_callable=__func__"]
    "super" "superobject" ["type=__thisclass__ obj=__self__ obj_type=__self_class__"]
    "member_descriptor" "PyMemberDescrObject" ["@PyDescrObject"]
    "getset_descriptor" "PyGetSetDescrObject" ["@PyDescrObject"]
    "method_descriptor|classmethod_descriptor" "PyMethodDescrObject" ["@PyDescrObject"]
    "wrapper_descriptor" "PyWrapperDescrObject" ["@PyDescrObject"]
    "method-wrapper" "wrapperobject" ["descr self=__self__"]
    "mappingproxy|dictproxy" "mappingproxyobject" ["mapping"]
    "classobj" "PyClassObject" ["cl_bases=__bases__ cl_dict=__dict__ cl_name=__name__
        cl_getattr=__getattr__ cl_setattr=__setattr__ cl_delattr=__delattr__"]
    "instance" "PyInstanceObject" ["in_class=__class__ in_dict=__dict__"]
    "module" "PyModuleObject" ["md_name=__name__"]
    "types.SimpleNamespace" "_PyNamespaceObject" []
    "types.GenericAlias" "gaobject" ["origin=__origin__ args=__args__ parameters=__parameters__"]
    "types.UnionType|typing.Union" "unionobject" ["args=__args__ hashable_args unhashable_args
        parameters=__parameters__"]
    "typing.TypeAliasType" "typealiasobject" ["name=__name__ qualname=__qualname__
        type_params=__type_params__ compute_value value=__value__ module=__module__"]
    "typing.TypeVar" "typevarobject" ["name=__name__ bound=__bound__ evaluate_bound
        constraints=__constraints__ evaluate_constraints default_value=__default__ evaluate_default"]
    "typing.ParamSpec" "paramspecobject" ["name=__name__ bound=__bound__ default_value=__default__
        evaluate_default"]
    "typing.TypeVarTuple" "typevartupleobject" ["name=__name__ bound=__bound__
        default_value=__default__ evaluate_default"]
    "string.templatelib.Template" "templateobject" ["strings interpolations"]
    "string.templatelib.Interpolation" "interpolationobject" ["value expression conversion format_spec"]
    "lazy_import" "PyLazyImportObject" ["lz_builtins lz_from lz_attr lz_code"]
    "slice" "PySliceObject" ["start stop step"]
    "range" "rangeobject" ["start stop step length"]
    "xrange" "rangeobject" []
    "complex" "PyComplexObject" []
    "PyCapsule" "PyCapsule" []
    "memoryview" "PyMemoryViewObject" ["mbuf=obj base view.obj!mbuf=obj"]
    "managedbuffer" "_PyManagedBufferObject" ["master.obj=obj"]
    "weakref|weakref.ReferenceType|weakproxy|weakref.ProxyType|weakcallableproxy|weakref.CallableProxyType"
        "PyWeakReference" ["~wr_object=referent wr_callback=__callback__"]
    "file" "PyFileObject" ["f_name=name f_mode=mode f_encoding=encoding f_errors=errors"]

    // frames, generators, exceptions
    "frame" "PyFrameObject" ["f_back f_code f_builtins f_globals f_locals f_trace f_exc_type f_exc_value
        f_exc_traceback f_extra_locals f_locals_cache f_overwritten_fast_locals"]
    "generator" "PyGenObject" ["@gi"]
    "coroutine" "PyCoroObject" ["@gi cr_origin cr_origin_or_finalizer"]
    "async_generator" "PyAsyncGenObject" ["@gi ag_finalizer ag_origin_or_finalizer"]
    "async_generator_asend" "PyAsyncGenASend" ["ags_gen ags_sendval"]
    "async_generator_athrow" "PyAsyncGenAThrow" ["agt_gen agt_args agt_typ agt_tb agt_val"]
    "async_generator_wrapped_value" "_PyAsyncGenWrappedValue" ["agw_val"]
    "coroutine_wrapper" "PyCoroWrapper" ["cw_coroutine"]
    "traceback" "PyTracebackObject" ["tb_next tb_frame"]
    "BaseException|exceptions.BaseException" "PyBaseExceptionObject" ["@exc"]
    "BaseExceptionGroup" "PyBaseExceptionGroupObject" ["@exc msg=message excs=exceptions
        excs_str"]
    "SyntaxError|exceptions.SyntaxError" "PySyntaxErrorObject" ["@exc msg filename lineno offset
        end_lineno end_offset text print_file_and_line metadata"]
    "ImportError" "PyImportErrorObject" ["@exc msg name path name_from"]
    "UnicodeEncodeError|UnicodeDecodeError|UnicodeTranslateError|exceptions.UnicodeEncodeError|\
     exceptions.UnicodeDecodeError|exceptions.UnicodeTranslateError" "PyUnicodeErrorObject"
        ["@exc encoding object reason"]
    "OSError|exceptions.EnvironmentError" "PyOSErrorObject"
        ["@exc myerrno=errno strerror filename filename2"]
    "SystemExit|exceptions.SystemExit" "PySystemExitObject" ["@exc code"]
    "StopIteration" "PyStopIterationObject" ["@exc value"]
    "NameError" "PyNameErrorObject" ["@exc name"]
    "AttributeError" "PyAttributeErrorObject" ["@exc obj name"]

    // containers beyond the families, views, iterators
    "collections.defaultdict" "defdictobject" ["default_factory"]
    "collections.deque" "dequeobject" []
    "_collections._deque_iterator|_collections._deque_reverse_iterator|\
     collections._deque_iterator|collections._deque_reverse_iterator|\
     deque_iterator|deque_reverse_iterator"
        "dequeiterobject" ["deque"]
    "collections._tuplegetter|_collections._tuplegetter" "tuplegetter" ["doc=__doc__"]
    "dict_keys|dict_values|dict_items" "_PyDictViewObject" ["dv_dict=mapping"]
    "odict_keys|odict_values|odict_items" "_PyDictViewObject" ["dv_dict=mapping"]
    "dict_keyiterator|dict_valueiterator|dict_itemiterator|dict_reversekeyiterator|\
     dict_reversevalueiterator|dict_reverseitemiterator|dictionary-keyiterator|dictionary-valueiterator|\
     dictionary-itemiterator" "dictiterobject" ["di_dict di_result"]
    "odict_iterator" "odictiterobject" ["di_odict di_result di_current"]
    "iterator|bytes_iterator|bytearray_iterator" "seqiterobject" ["it_seq"]
    "callable_iterator|callable-iterator" "calliterobject" ["it_callable it_sentinel"]
    "list_iterator|list_reverseiterator|listiterator|listreverseiterator" "listiterobject" ["it_seq"]
    "tuple_iterator|tupleiterator" "tupleiterobject" ["it_seq"]
    "str_iterator|str_ascii_iterator" "unicodeiterobject" ["it_seq"]
    "set_iterator|setiterator" "setiterobject" ["si_set"]
    "range_iterator|rangeiterator" "rangeiterobject" []
    "longrange_iterator" "longrangeiterobject" ["index start step len"]
    "enumerate" "enumobject" ["en_sit en_result en_longindex one"]
    "reversed" "reversedobject" ["seq"]
    "filter" "filterobject" ["func it"]
    "map" "mapobject" ["iters func"]
    "zip" "zipobject" ["ittuple result"]
    "memory_iterator" "memoryiterobject" ["it_seq"]
    "array.arrayiterator|arrayiterator" "arrayiterobject" ["ao"]
    "_struct.Struct|Struct" "PyStructObject" ["s_format=format"]
    "_struct.unpack_iterator|unpack_iterator" "unpackiterobject" ["so buf.obj"]

    // contexts
    "_contextvars.Context|Context" "PyContext" ["ctx_prev ctx_vars"]
    "_contextvars.ContextVar|ContextVar" "PyContextVar" ["var_name=name var_default"]
    "_contextvars.Token|Token" "PyContextToken" ["tok_ctx tok_var=var tok_oldval=old_value"]
    "hamt" "PyHamtObject" ["h_root"]
    "hamt_bitmap_node" "PyHamtNode_Bitmap" ["b_array[pairs]"]
    "hamt_array_node" "PyHamtNode_Array" ["a_array[32]"]
    "hamt_collision_node" "PyHamtNode_Collision" ["c_array[pairs]"]

    // functools, operator, itertools
    "functools.partial" "partialobject" ["fn=func args kw=keywords"]
    "functools._lru_cache_wrapper" "lru_cache_object" ["func=__wrapped__ cache kwd_mark lru_list_elem_type
        cache_info_type maxsize_O root.next[links]"]
    "functools._lru_list_elem" "lru_list_elem" ["key result"]
    "functools.KeyWrapper" "keyobject" ["cmp object"]
    "operator.itemgetter" "itemgetterobject" ["item"]
    "operator.attrgetter" "attrgetterobject" ["attr"]
    "operator.methodcaller" "methodcallerobject" ["name args kwds xargs vectorcall_args!xargs
        vectorcall_kwnames!xargs"]
    "itertools.accumulate" "accumulateobject" ["total it binop initial"]
    "itertools.batched" "batchedobject" ["it"]
    "itertools.chain" "chainobject" ["source active"]
    "itertools.combinations" "combinationsobject" ["pool result"]
    "itertools.combinations_with_replacement" "cwrobject" ["pool result"]
    "itertools.compress" "compressobject" ["data selectors"]
    "itertools.count" "countobject" ["long_cnt long_step"]
    "itertools.cycle" "cycleobject" ["it saved"]
    "itertools.dropwhile" "dropwhileobject" ["func it"]
    "itertools.filterfalse|itertools.ifilterfalse" "filterfalseobject" ["func it"]
    "itertools.groupby" "groupbyobject" ["it keyfunc tgtkey currkey currvalue"]
    "itertools._grouper" "_grouperobject" ["parent tgtkey"]
    "itertools.islice" "isliceobject" ["it"]
    "itertools.pairwise" "pairwiseobject" ["it old result"]
    "itertools.permutations" "permutationsobject" ["pool result"]
    "itertools.product" "productobject" ["pools result"]
    "itertools.repeat" "repeatobject" ["element"]
    "itertools.starmap" "starmapobject" ["func it"]
    "itertools.takewhile" "takewhileobject" ["func it"]
    "itertools._tee_dataobject|itertools.tee_dataobject" "teedataobject" ["it nextlink values[numread]"]
    "itertools._tee|itertools.tee" "teeobject" ["dataobj"]
    "itertools.zip_longest|itertools.izip_longest" "ziplongestobject" ["ittuple result fillvalue"]

    // io
    "_io._IOBase" "iobase" []
    "_io.FileIO" "fileio" []
    "_io.BytesIO" "bytesio" ["buf"]
    "_io._BytesIOBuffer" "bytesiobuf" ["source"]
    "_io.StringIO" "stringio" ["decoder readnl writenl accu.large accu.small writer.buffer"]
    "_io.TextIOWrapper" "textio" ["buffer encoding encoder decoder readnl errors decoded_chars
        pending_bytes snapshot raw"]
    "_io.BufferedReader|_io.BufferedWriter|_io.BufferedRandom" "buffered" ["raw"]
    "_io.BufferedRWPair" "rwpair" ["reader writer"]
    "_io.IncrementalNewlineDecoder" "nldecoder_object" ["decoder errors"]

    // threads, asyncio
    "_thread.lock|thread.lock" "lockobject" []
    "_thread.RLock" "rlockobject" []
    "_thread._local|thread._local" "localobject" ["key args kw dummies wr_callback localdicts
        thread_watchdogs"]
    "_thread._localdummy|thread._localdummy" "localdummyobject" ["~localdict"]
    "_asyncio.Future" "FutureObj" ["@fut"]
    "_asyncio.Task" "TaskObj" ["@task"]
    "_asyncio.TaskStepMethWrapper|TaskStepMethWrapper" "TaskStepMethWrapper" ["sw_task sw_arg"]
    "_asyncio.FutureIter" "futureiterobject" ["future"]

    // text, time and data
    "re.Pattern|_sre.SRE_Pattern" "PatternObject" ["groupindex indexgroup pattern"]
    "re.Match|_sre.SRE_Match" "MatchObject" ["string regs pattern=re"]
    "_sre.SRE_Scanner" "ScannerObject" ["pattern state.string"]
    "decimal.Decimal" "PyDecObject" []
    "decimal.Context" "PyDecContextObject" ["traps flags"]
    "decimal.ContextManager" "PyDecContextManagerObject" ["local global"]
    "_queue.SimpleQueue" "simplequeueobject" ["lst buf.items[ring]"]
    "_socket.socket" "PySocketSockObject" []
    "_json.Encoder" "PyEncoderObject" ["markers defaultfn encoder indent key_separator item_separator"]
    "datetime.date" "PyDateTime_Date" []
    "datetime.datetime" "PyDateTime_DateTime" ["tzinfo?hastzinfo"]
    "datetime.time" "PyDateTime_Time" ["tzinfo?hastzinfo"]
    "datetime.timedelta" "PyDateTime_Delta" []
    "datetime.timezone" "PyDateTime_TimeZone" ["offset name"]
    "_random.Random" "RandomObject" []
    "_csv.Dialect" "DialectObj" ["lineterminator"]
    "_csv.reader" "ReaderObj" ["input_iter dialect fields"]
    "_csv.writer" "WriterObj" ["write writeline dialect error_obj"]
    "xml.etree.ElementTree.Element" "ElementObject" ["tag"]
    "_ctypes._CData" "tagCDataObject" ["b_base=_b_base_ b_objects=_objects"]
    "_ctypes.PyCFuncPtr|_ctypes.CFuncPtr" "PyCFuncPtrObject" ["b_base=_b_base_ b_objects=_objects thunk
        callable converters argtypes restype checker errcheck paramflags"]
    "_ctypes.CField" "PyCFieldObject" ["proto name"]
    "_ctypes.CThunkObject" "CThunkObject" ["converters callable restype"]
    // The exceptions it has as members are the module's.
    "sqlite3.Connection|_sqlite3.Connection" "pysqlite_Connection" ["isolation_level!state statement_cache cursors blobs
        statements row_factory text_factory function_pinboard function_pinboard_trace_callback
        function_pinboard_progress_handler function_pinboard_authorizer_cb collations"]
    "StgDict" "StgDictObject" ["proto argtypes converters restype checker"]
}

/// The fields of a record that several types share.
fn shared(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        // `PyException_HEAD`.
        "exc" => (
            "PyBaseExceptionObject",
            "args message traceback=__traceback__ context=__context__ cause=__cause__ notes=__notes__",
        ),
        "PyDescrObject" => ("PyDescrObject", "d_type=__objclass__ d_name=__name__ d_qualname=__qualname__"),
        // Coroutines and asynchronous generators begin alike (`_PyGenObject_HEAD`).
        "gi" => (
            "PyGenObject",
            "gi_frame gi_code gi_name=__name__ gi_qualname=__qualname__ gi_exc_state.exc_type
             gi_exc_state.exc_value gi_exc_state.exc_traceback",
        ),
        "fut" => (
            "FutureObj",
            "fut_loop fut_callback0 fut_context0 fut_callbacks fut_exception fut_exception_tb fut_result
             fut_source_tb fut_cancel_msg fut_cancelled_exc fut_awaited_by fut_cancelled_exc_state.exc_type
             fut_cancelled_exc_state.exc_value fut_cancelled_exc_state.exc_traceback",
        ),
        "task" => (
            "TaskObj",
            "task_loop task_callback0 task_context0 task_callbacks task_exception task_exception_tb
             task_result task_source_tb task_cancel_msg task_cancelled_exc task_awaited_by task_fut_waiter
             task_coro task_name task_context task_cancelled_exc_state.exc_type
             task_cancelled_exc_state.exc_value task_cancelled_exc_state.exc_traceback",
        ),
        _ => return None,
    })
}

/// The record of a type of that name and size. A built-in without a module is told by its name alone:
/// frames and generators declare less than their structure, and no class can be static.
pub fn of_name(table: &Table, name: &[u8], basicsize: u64, heap: bool) -> RecordId {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let named = |r: &Record| r.names.split('|').any(|n| n == name);
    // An array at the end is declared with one item, which the basic size may leave out.
    let fits =
        |r: &Record| named(r) && table.size(r.of).is_some_and(|s| s == basicsize || s == basicsize + 8);
    let bare = || {
        let at = RECORDS.iter().position(|r| named(r) && table.size(r.of).is_some())?;
        (!heap && !name.contains('.')).then_some(at)
    };
    RECORDS.iter().position(fits).or_else(bare).map_or(0, |i| i as RecordId + 1)
}

/// Every record's fields as this version has them, by id − 1.
pub fn resolve(table: &Table) -> Vec<Vec<Held>> {
    RECORDS.iter().map(|r| fields(table, r)).collect()
}

fn fields(table: &Table, record: &Record) -> Vec<Held> {
    let mut held = Vec::new();
    for spec in record.fields.split_whitespace() {
        match spec.strip_prefix('@').and_then(shared) {
            Some((of, fields)) => held.extend(fields.split_whitespace().filter_map(|f| field(table, of, f))),
            None => held.extend(field(table, record.of, spec)),
        }
    }
    held.sort_by_key(|h: &Held| h.offset);
    held.dedup_by_key(|h| h.offset);
    held
}

fn field(table: &Table, of: &str, spec: &'static str) -> Option<Held> {
    let (strength, spec) = match spec.strip_prefix('~') {
        Some(spec) => (Strength::Weak, spec),
        None => (Strength::Strong, spec),
    };
    // What decides whether it is there is no part of its name.
    let name = &spec[..spec.find(['?', '!']).unwrap_or(spec.len())];
    let (path, label) = spec.split_once('=').unwrap_or((spec, name));
    let (path, when) = match path.split_once('?') {
        Some((path, flag)) => (path, Some(u32::try_from(table.offset(of, flag)?).ok()?)),
        None => (path, None),
    };
    let path = match path.split_once('!') {
        Some((_, other)) if table.offset(of, other).is_some() => return None,
        Some((path, _)) => path,
        None => path,
    };
    let (path, many) = match path.split_once('[') {
        None => (path, Many::One),
        Some((path, count)) => {
            let count = count.trim_end_matches(']');
            let many = match count.parse() {
                Ok(n) => Many::Fixed(n),
                Err(_) if count == "links" => Many::Links,
                Err(_) if count == "pairs" => Many::Pairs,
                Err(_) if count == "ring" => {
                    let ring = path.rsplit_once('.')?.0;
                    let at = |name: &str| {
                        let at = table.offset(of, &format!("{ring}.{name}"))?;
                        u32::try_from(at).ok()
                    };
                    Many::Ring([at("get_idx")?, at("items_cap")?, at("num_items")?])
                }
                Err(_) if count.is_empty() => Many::Sized,
                Err(_) => Many::CountAt(u32::try_from(table.offset(of, count)?).ok()?),
            };
            (path, many)
        }
    };
    // A base's fields are where the base begins, which is where the structure begins.
    let offset = table.offset(of, path).or_else(|| {
        let rest = path.strip_prefix("func.")?;
        table.offset("PyCFunctionObject", rest)
    })?;
    Some(Held { offset: u32::try_from(offset).ok()?, label, strength, many, when })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::loaded;

    #[test]
    fn every_record_has_its_structure_in_some_version_and_every_field_too() {
        let mut lacking = Vec::new();
        let mut check = |of: &str, spec: &'static str| {
            if !loaded().iter().any(|(_, l)| field(&l.table, of, spec).is_some()) {
                lacking.push(format!("{of}.{spec}"));
            }
        };
        for record in RECORDS {
            for spec in record.fields.split_whitespace() {
                match spec.strip_prefix('@') {
                    None => check(record.of, spec),
                    Some(name) => {
                        let (of, fields) = shared(name).expect("a shared list");
                        fields.split_whitespace().for_each(|f| check(of, f));
                    }
                }
            }
        }
        assert!(lacking.is_empty(), "no version has {lacking:?}");
        for record in RECORDS {
            assert!(loaded().iter().any(|(_, l)| l.table.size(record.of).is_some()), "{}", record.of);
        }
    }
}
