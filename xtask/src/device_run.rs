pub fn run(_f: &[&str]) -> crate::process::Result<()> {
    todo!()
}
