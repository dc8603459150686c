pub fn pack(_f: &str) -> crate::process::Result<()> {
    todo!()
}
