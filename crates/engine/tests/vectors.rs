//! An index of vectors, as its handle shows it: against a plain list, and its file against every kind of damage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use candlewick_engine::{
    Add, CancelToken, Done, EngineError, Filter, Found, Search, Similarity, VectorIndex, VectorPrecision,
    VectorShape,
};

const WIDTH: usize = 8;

fn wait<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Result<T, EngineError> {
    let (send, receive) = mpsc::channel();
    start(Box::new(move |value| send.send(value).unwrap()));
    receive.recv().unwrap()
}

fn shape(precision: VectorPrecision) -> VectorShape {
    let rescore = if precision == VectorPrecision::Binary { VectorPrecision::F32 } else { precision };
    VectorShape { width: WIDTH, similarity: Similarity::Euclidean, precision, rescore }
}

fn new() -> VectorIndex {
    VectorIndex::new(shape(VectorPrecision::F32), 2).unwrap()
}

fn add(index: &VectorIndex, data: &[f32], said: Option<&str>, replace: bool) -> Result<usize, EngineError> {
    let add = Add { batch: 1, data: data.to_vec(), said: said.map(str::to_string), last: true, replace };
    wait(|done| index.add(add, done))
}

fn search(
    index: &VectorIndex,
    query: &[f32],
    top_k: usize,
    filter: Option<&str>,
) -> Result<Found, EngineError> {
    let filter = filter.map(|filter| Filter::parse(filter).unwrap());
    let search = Search { queries: query.to_vec(), top_k, threshold: None, filter, oversample: 4 };
    wait(|done| index.search(search, CancelToken::new(), done))
}

fn save(index: &VectorIndex, path: &Path) -> Result<(), EngineError> {
    wait(|done| index.save(path.into(), CancelToken::new(), done))
}

fn load(path: &Path) -> Result<(VectorIndex, usize), EngineError> {
    wait(|done| VectorIndex::load(path.into(), 2, CancelToken::new(), done))
}

fn file(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("candlewick-vectors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..WIDTH).map(|_| self.below(2000) as f32 / 1000.0 - 1.0).collect()
    }
}

/// `(id, vector, kind)` of what is in, by place.
type Model = BTreeMap<u32, (u64, Vec<f32>, u64)>;

fn expected(model: &Model, query: &[f32], kind: Option<u64>) -> Vec<String> {
    let mut rows: Vec<(f64, u32, u64, u64)> = model
        .iter()
        .filter(|(_, row)| kind.is_none_or(|kind| row.2 == kind))
        .map(|(place, (id, vector, kind))| {
            let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
            (vector.iter().zip(query).map(square).sum::<f64>(), *place, *id, *kind)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    rows.iter()
        .take(5)
        .map(|(_, _, id, kind)| format!(r#"["id {id}",{{"even":{},"kind":{kind}.0}}]"#, id % 2 == 0))
        .collect()
}

fn details(found: &Found) -> String {
    found.details.concat()
}

#[test]
fn random_operations_and_files_agree_with_a_list() {
    let path = file("random.index");
    let mut random = Random(3);
    let (mut index, mut model, mut next) = (new(), Model::new(), 0u32);
    for step in 0..600 {
        let count = 1 + random.below(60);
        match random.below(10) {
            0..5 => {
                // Some ids are new and some are known: an update.
                let replace = random.below(2) == 0;
                let ids: Vec<u64> = (0..count).map(|at| 10_000 * step + at).collect();
                let known: Vec<u64> = model.values().map(|row| row.0).take(3).collect();
                let ids: Vec<u64> = if replace { ids.into_iter().chain(known).collect() } else { ids };
                let (mut data, mut said, mut said_of) = (Vec::new(), Vec::new(), Vec::new());
                for id in ids {
                    let (vector, kind) = (random.vector(), random.below(4));
                    data.extend(&vector);
                    said.push(format!(r#""sid {id}""#));
                    said_of.push(format!(r#"{{"even": {}, "kind": "n{kind}"}}"#, id % 2 == 0));
                    let place = model.iter().find(|(_, row)| row.0 == id).map(|(place, _)| *place);
                    next += u32::from(place.is_none());
                    model.insert(place.unwrap_or(next - 1), (id, vector, kind));
                }
                let said = format!(r#"{{"ids": [{}], "metadata": [{}]}}"#, said.join(","), said_of.join(","));
                assert_eq!(add(&index, &data, Some(&said), replace).unwrap(), model.len());
            }
            5..8 => {
                let gone: Vec<u64> =
                    model.values().map(|row| row.0).filter(|_| random.below(3) == 0).take(40).collect();
                let before = model.len();
                model.retain(|_, row| !gone.contains(&row.0));
                let ids: Vec<String> = gone.iter().map(|id| format!(r#""sid {id}""#)).collect();
                // An id that is not in, and one that is named twice.
                let ids = format!(
                    r#"["sno", {0}"sid 1", "sno"]"#,
                    ids.iter().map(|id| format!("{id}, ")).collect::<String>()
                );
                model.retain(|_, row| row.0 != 1);
                assert_eq!(wait(|done| index.delete(ids, done)).unwrap(), before - model.len());
            }
            8 => {
                let kind = random.below(4);
                let before = model.len();
                model.retain(|_, row| row.2 != kind);
                let filter =
                    Filter::parse(&format!(r#"{{"field": "kind", "op": "in", "value": ["n{kind}"]}}"#))
                        .unwrap();
                assert_eq!(wait(|done| index.delete_where(filter, done)).unwrap(), before - model.len());
            }
            _ => {
                save(&index, &path).unwrap();
                let (loaded, size) = load(&path).unwrap();
                assert_eq!(size, model.len());
                index = loaded;
            }
        }
        let query = random.vector();
        let found = search(&index, &query, 5, None).unwrap();
        let all = expected(&model, &query, None);
        if !all.is_empty() {
            assert_eq!(details(&found), format!("[{}]", all.join(",")), "step {step}");
        }
        let kind = random.below(4);
        let filter = format!(r#"{{"field": "kind", "op": "in", "value": ["n{kind}"]}}"#);
        let found = search(&index, &query, 5, Some(&filter)).unwrap();
        let some = expected(&model, &query, Some(kind));
        assert_eq!(found.hits[0].len(), some.len());
        if !some.is_empty() {
            assert_eq!(details(&found), format!("[{}]", some.join(",")));
        }
    }
    assert!(next > 5000, "{next}");
}

#[test]
fn many_deletions_leave_the_others_where_they_were() {
    let mut random = Random(4);
    let index = new();
    let rows: Vec<Vec<f32>> = (0..12_000).map(|_| random.vector()).collect();
    add(&index, &rows.concat(), None, false).unwrap();
    let gone: Vec<String> = (0..12_000).filter(|at| at % 10 != 3).map(|at| format!(r#""n{at}""#)).collect();
    assert_eq!(wait(|done| index.delete(format!("[{}]", gone.join(",")), done)).unwrap(), 10_800);
    for at in [3, 5003, 11_993] {
        let found = search(&index, &rows[at], 1, None).unwrap();
        assert_eq!((found.hits[0][0].index, found.hits[0][0].score), (at as u32, 0.0));
        assert!(found.details.is_empty());
    }
    assert_eq!(add(&index, &rows[0], None, false).unwrap(), 1201);
    assert_eq!(search(&index, &rows[0], 1, None).unwrap().hits[0][0].index, 12_000);
    // By its number, a vector may be replaced; there is no other of that number to be made.
    add(&index, &rows[1], Some(r#"{"ids": ["n12000"]}"#), true).unwrap();
    assert_eq!(search(&index, &rows[1], 1, None).unwrap().hits[0][0].index, 12_000);
    assert_eq!(add(&index, &rows[1], Some(r#"{"ids": ["n0"]}"#), true).unwrap_err().code(), "INPUT_INVALID");
}

#[test]
fn what_is_refused_changes_nothing() {
    let index = new();
    let one = [1.0; WIDTH];
    let two = [one, [2.0; WIDTH]].concat();
    assert_eq!(add(&index, &one, Some(r#"{"ids": ["sa"]}"#), false).unwrap(), 1);
    let mut bad = two.clone();
    bad[WIDTH + 3] = f32::NAN;
    for (data, said, replace) in [
        (&bad, r#"{"ids": ["sb", "sc"]}"#, false),
        (&bad, r#"{"ids": ["sa", "sc"]}"#, true),
        (&two, r#"{"ids": ["sb", "sa"]}"#, false),
        (&two, r#"{"ids": ["sb", "sb"]}"#, false),
        (&two, r#"{"ids": ["sb", "sb"]}"#, true),
    ] {
        let error = add(&index, data, Some(said), replace).unwrap_err();
        assert_eq!(error.code(), "INPUT_INVALID");
        assert!(matches!(error, EngineError::Input { index: 1, .. }), "{error:?}");
    }
    assert_eq!(add(&index, &one, None, false).unwrap_err().code(), "INPUT_INVALID");
    let found = search(&index, &[5.0; WIDTH], 9, None).unwrap();
    assert_eq!((details(&found).as_str(), found.hits[0].len()), (r#"[["a",null]]"#, 1));
    // A batch of several parts is added with its last one, or not at all.
    let part = |batch, id: &str, last| Add {
        batch,
        data: one.to_vec(),
        said: Some(format!(r#"{{"ids": ["{id}"]}}"#)),
        last,
        replace: false,
    };
    assert_eq!(wait(|done| index.add(part(7, "sx", false), done)).unwrap(), 1);
    assert_eq!(wait(|done| index.add(part(8, "sy", true), done)).unwrap(), 2);
    assert_eq!(wait(|done| index.add(part(7, "sz", true), done)).unwrap(), 4);
    // More fields than an index may have: none of the rows is added.
    let fields = |from: usize, to: usize| {
        (from..to).map(|at| format!(r#""f{at}": true"#)).collect::<Vec<_>>().join(",")
    };
    let said = |id: &str, from, to| format!(r#"{{"ids": ["{id}"], "metadata": [{{{}}}]}}"#, fields(from, to));
    assert_eq!(add(&index, &one, Some(&said("sf", 0, 1000)), false).unwrap(), 5);
    assert_eq!(add(&index, &one, Some(&said("sg", 900, 1025)), false).unwrap_err().code(), "INPUT_INVALID");
    assert_eq!(add(&index, &one, Some(&said("sg", 900, 1024)), false).unwrap(), 6);
}

#[test]
fn a_closed_index_says_so() {
    let index = new();
    add(&index, &[1.0; WIDTH], None, false).unwrap();
    wait(|done| index.close(done)).unwrap();
    wait(|done| index.close(done)).unwrap();
    assert_eq!(search(&index, &[1.0; WIDTH], 1, None).unwrap_err().code(), "MODEL_CLOSED");
}

/// A file of each precision, with ids and metadata.
fn sample(path: &Path, precision: VectorPrecision, count: u64) {
    let mut random = Random(5);
    let index = VectorIndex::new(shape(precision), 1).unwrap();
    let data: Vec<f32> = (0..count).flat_map(|_| random.vector()).collect();
    let ids: Vec<String> = (0..count)
        .map(|at| if at % 2 == 0 { format!(r#""n{at}""#) } else { format!(r#""sé{at}""#) })
        .collect();
    let row = |at: u64| {
        format!(
            r#"{{"text": "s{}", "n": "n{at}", "ok": true, "no": null, "tags": ["sa", "n1", false]}}"#,
            at % 3
        )
    };
    let rows: Vec<String> = (0..count).map(row).collect();
    let said = format!(r#"{{"ids": [{}], "metadata": [{}]}}"#, ids.join(","), rows.join(","));
    add(&index, &data, Some(&said), false).unwrap();
    save(&index, path).unwrap();
}

#[test]
fn every_cut_and_every_flip_is_found() {
    for precision in [VectorPrecision::F32, VectorPrecision::Int8, VectorPrecision::Binary] {
        let path = file(&format!("sample-{precision:?}.index"));
        sample(&path, precision, 9);
        let (_, size) = load(&path).unwrap();
        assert_eq!(size, 9);
        let whole = std::fs::read(&path).unwrap();
        let damaged = file(&format!("damaged-{precision:?}.index"));
        let refuse = |bytes: &[u8], what: &str| {
            std::fs::write(&damaged, bytes).unwrap();
            let error = load(&damaged).err().unwrap_or_else(|| panic!("{what} was read"));
            assert_eq!(error.code(), "INDEX_INVALID", "{what}");
            assert!(error.to_string().contains("damaged"), "{error}");
        };
        for len in 0..whole.len() {
            refuse(&whole[..len], &format!("{len} bytes"));
        }
        refuse(&[&whole[..], &[0]].concat(), "a byte more");
        let mut random = Random(6);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << random.below(8);
            refuse(&bytes, &format!("a flip at {at}"));
        }
        for _ in 0..500 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(6) {
                let at = random.below(whole.len() as u64) as usize;
                bytes[at] = bytes[at].wrapping_add(1 + random.below(255) as u8);
            }
            refuse(&bytes, "flips");
        }
    }
    assert_eq!(load(&file("none.index")).err().unwrap().code(), "IO");
    assert_eq!(load(file("none.index").parent().unwrap()).err().unwrap().code(), "IO");
}

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let path = file("folder/replaced.index");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    sample(&path, VectorPrecision::F32, 3);
    sample(&path, VectorPrecision::Int8, 5);
    assert_eq!(load(&path).unwrap().1, 5);
    let index = new();
    let cancel = CancelToken::new();
    cancel.cancel();
    add(&index, &[1.0; WIDTH], None, false).unwrap();
    let aborted = wait(|done| index.save(path.clone(), cancel, done));
    assert_eq!(aborted.unwrap_err().code(), "ABORTED");
    assert_eq!(load(&path).unwrap().1, 5);
    assert_eq!(save(&index, &file("no/such/folder.index")).unwrap_err().code(), "IO");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}
