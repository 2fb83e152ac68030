//! Embeddings: rows of a table, by id.

use crate::Pool;
use crate::buffer::SharedMut;

/// Rows of a task.
const ROWS: usize = 64;
/// Columns of a task of `scatter_add_rows`.
const COLUMNS: usize = 64;

fn copy(pool: &Pool, table: &[f32], width: usize, ids: &[u32], out: &mut [f32], add: bool) {
    assert!(out.len() == ids.len() * width, "out is [ids, {width}]");
    let shared = SharedMut(out.as_mut_ptr());
    pool.run(ids.len().div_ceil(ROWS), |task| {
        let first = task * ROWS;
        let ids = &ids[first..ids.len().min(first + ROWS)];
        // SAFETY: each task has its own rows of out.
        let out = unsafe { shared.slice(first * width, ids.len() * width) };
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
            let row = &table[*id as usize * width..][..width];
            if add {
                out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
            } else {
                out.copy_from_slice(row);
            }
        }
    });
}

/// out[i] = table[ids[i]], rows of `width`.
///
/// # Panics
/// If an id is outside the table; as in the other functions here.
pub fn gather_rows(pool: &Pool, table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    copy(pool, table, width, ids, out, false);
}

/// out[i] += table[ids[i]].
pub fn add_rows(pool: &Pool, table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    copy(pool, table, width, ids, out, true);
}

/// table[ids[i]] += rows[i], in the order of the rows.
pub fn scatter_add_rows(pool: &Pool, rows: &[f32], width: usize, ids: &[u32], table: &mut [f32]) {
    assert!(
        rows.len() == ids.len() * width && ids.iter().all(|id| (*id as usize + 1) * width <= table.len())
    );
    let shared = SharedMut(table.as_mut_ptr());
    pool.run(width.div_ceil(COLUMNS), |task| {
        let (first, count) = (task * COLUMNS, COLUMNS.min(width - task * COLUMNS));
        for (id, row) in ids.iter().zip(rows.chunks_exact(width)) {
            // SAFETY: each task has its own columns of the table.
            let to = unsafe { shared.slice(*id as usize * width + first, count) };
            to.iter_mut().zip(&row[first..][..count]).for_each(|(to, x)| *to += x);
        }
    });
}
