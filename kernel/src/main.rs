//! doorbell
fn main(){}
