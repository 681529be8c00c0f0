//! `--help`: an example explains itself by the comment at its head.

/// Prints the head of an example's source if `--help` is asked for, and says whether it was.
pub(crate) fn is_asked(source: &str) -> bool {
    let asked = std::env::args().skip(1).any(|word| word == "--help" || word == "-h");
    if asked {
        let head = source.lines().map_while(|line| line.strip_prefix("//!"));
        for line in head.filter(|line| !line.starts_with(" ```")) {
            println!("{}", line.strip_prefix(' ').unwrap_or(line));
        }
    }
    asked
}
