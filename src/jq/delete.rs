//! `del` and `delpaths` as in jq: the fields that stay keep their order. Used by `program`.
//!
//! jaq's own put the last field of an object into the gap, and delete one path after the other, so that the
//! indices of an array have moved when the second one is taken.

use jaq_core::native::{Fun, run, unary, v};
use jaq_core::path::Opt;
use jaq_core::{DataT, Exn, ValT as _};
use jaq_json::{Error, Rc, Val, ValR};
use jaq_std::ValT as _;

/// The definitions that take the place of jaq's.
pub(super) const DEFINITIONS: &str = "
    def delpaths($paths): reduce ($paths | sort | reverse)[] as $path (.; delete_path($path));
    def del(f): delpaths([path(f)]);
";

/// Their names.
pub(super) const NAMES: [&str; 2] = ["del", "delpaths"];

/// The function that they call.
pub(super) fn native<D: for<'a> DataT<V<'a> = Val>>() -> Fun<D> {
    run(("delete_path", v(1), |cv| {
        unary(cv, |value, path| match path {
            Val::Arr(path) => delete(value, &path),
            path => Err(Error::typ(path, "array")),
        })
    }))
}

fn delete(value: Val, path: &[Val]) -> ValR {
    let Some((key, rest)) = path.split_first() else {
        return Ok(Val::Null);
    };
    match value {
        Val::Null => Ok(Val::Null),
        Val::Obj(mut fields) if matches!(key, Val::TStr(_)) => {
            if rest.is_empty() {
                Rc::make_mut(&mut fields).shift_remove(key);
            } else if let Some(child) = Rc::make_mut(&mut fields).get_mut(key) {
                *child = delete(std::mem::take(child), rest)?;
            }
            Ok(Val::Obj(fields))
        }
        Val::Arr(mut values) if key.is_int() => {
            let index =
                key.as_isize().map(|at| if at < 0 { at.saturating_add_unsigned(values.len()) } else { at });
            if let Some(at) = index.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < values.len()) {
                let values = Rc::make_mut(&mut values);
                if rest.is_empty() {
                    values.remove(at);
                } else {
                    values[at] = delete(std::mem::take(&mut values[at]), rest)?;
                }
            }
            Ok(Val::Arr(values))
        }
        // Slices, and what has no such key.
        value => {
            let child =
                |child| (!rest.is_empty()).then(|| delete(child, rest).map_err(Exn::from)).into_iter();
            value.map_index(key, Opt::Essential, child).map_err(|exception| {
                exception.get_err().unwrap_or_else(|_| Error::str("cannot delete this path"))
            })
        }
    }
}
