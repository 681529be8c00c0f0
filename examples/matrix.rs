//! Multiplies two matrices, rows of the product side by side on the computing threads.
//!
//! ```text
//! cargo run --release --example matrix           300 × 300
//! cargo run --release --example matrix -- 50     so large
//! ```

mod help;

use std::sync::Arc;
use std::time::Instant;

use tidegate::runtime::Runtime;
use tidegate::task::{Error, Parallel, go};

/// Rows one after another.
struct Matrix {
    columns: usize,
    cells: Vec<f64>,
}

/// Rows that one task computes: enough that a task is worth its hand-over, few enough that all threads have some.
const ROWS_PER_TASK: usize = 8;

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("matrix.rs")) {
        return Ok(());
    }
    let size: usize = std::env::args().nth(1).map_or(Ok(300), |size| size.parse())?;
    let a = Arc::new(Matrix::new(size, |row, column| (row + column) as f64));
    let b = Arc::new(Matrix::new(size, |row, column| if row == column { 2.0 } else { 0.0 }));
    let runtime = Runtime::new()?;
    let started = Instant::now();

    let blocks: Parallel<_> = (0..size)
        .step_by(ROWS_PER_TASK)
        .map(|first| {
            let (a, b) = (a.clone(), b.clone());
            let rows = first..(first + ROWS_PER_TASK).min(size);
            go(move || rows.flat_map(|row| product_row(&a, &b, row)).collect::<Vec<_>>())
        })
        .collect();
    let tasks = blocks.len();
    // The results come in the order of the tasks, whichever was done first.
    let blocks = runtime.run(blocks)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let product = Matrix { columns: size, cells: blocks.concat() };

    println!("{size} × {size} in {tasks} tasks, {:?}", started.elapsed());
    // Twice the unit matrix doubles.
    let right = (0..size).all(|row| product.row(row).iter().zip(a.row(row)).all(|(p, a)| *p == 2.0 * a));
    println!("right: {right}");
    Ok(())
}

fn product_row(a: &Matrix, b: &Matrix, row: usize) -> Vec<f64> {
    let mut sums = vec![0.0; b.columns];
    for (inner, factor) in a.row(row).iter().enumerate() {
        for (sum, cell) in sums.iter_mut().zip(b.row(inner)) {
            *sum += factor * cell;
        }
    }
    sums
}

impl Matrix {
    fn new(size: usize, cell: impl Fn(usize, usize) -> f64) -> Matrix {
        let cells = (0..size * size).map(|at| cell(at / size, at % size)).collect();
        Matrix { columns: size, cells }
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.cells[row * self.columns..][..self.columns]
    }
}
