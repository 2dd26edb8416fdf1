//! host tool
fn main(){}
