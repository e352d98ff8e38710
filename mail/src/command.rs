//! The commands, their names and their abbreviations (POSIX mailx, "Commands in mailx").

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Alias,
    Alternates,
    Chdir,
    Copy,
    CopyByName,
    Delete,
    DeletePrint,
    Echo,
    Exit,
    File,
    Folders,
    From,
    Headers,
    Help,
    Hold,
    Ignore,
    List,
    Mail,
    Mbox,
    Next,
    Pipe,
    Print,
    PrintAll,
    Quit,
    Reply,
    ReplySender,
    Retain,
    Save,
    SaveByName,
    Screen,
    Set,
    Shell,
    ShellCommand,
    Size,
    Source,
    Top,
    Touch,
    Unalias,
    Undelete,
    Unread,
    Unset,
    Where,
    Write,
}

/// A name, how many letters of it are enough, its verb, and its line of the help.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    least: usize,
    pub(crate) verb: Verb,
    pub(crate) help: &'static str,
}

const fn command(name: &'static str, least: usize, verb: Verb, help: &'static str) -> Command {
    Command {
        name,
        least,
        verb,
        help,
    }
}

/// In the order in which an abbreviation is looked for. Without a help text: another name.
pub(crate) const COMMANDS: &[Command] = &[
    command("print", 1, Verb::Print, "print [list]        show messages"),
    command(
        "Print",
        1,
        Verb::PrintAll,
        "Print [list]        show messages with all header fields",
    ),
    command("type", 1, Verb::Print, ""),
    command("Type", 1, Verb::PrintAll, ""),
    command(
        "next",
        1,
        Verb::Next,
        "next                show the next message (RETURN does the same)",
    ),
    command(
        "top",
        2,
        Verb::Top,
        "top [list]          show the first lines of messages",
    ),
    command(
        "headers",
        1,
        Verb::Headers,
        "headers [message]   show the screen of the list with the message in it",
    ),
    command(
        "z",
        1,
        Verb::Screen,
        "z, z-               show the next, the previous screen of the list",
    ),
    command(
        "from",
        1,
        Verb::From,
        "from [list]         show the lines of the list for messages",
    ),
    command(
        "size",
        2,
        Verb::Size,
        "size [list]         show the sizes of messages",
    ),
    command(
        "delete",
        1,
        Verb::Delete,
        "delete [list]       delete messages",
    ),
    command(
        "dp",
        2,
        Verb::DeletePrint,
        "dp                  delete, and show the next message",
    ),
    command("dt", 2, Verb::DeletePrint, ""),
    command(
        "undelete",
        1,
        Verb::Undelete,
        "undelete [list]     take that back",
    ),
    command(
        "save",
        1,
        Verb::Save,
        "save [list] file    append messages to a file (+folder: to a folder)",
    ),
    command(
        "Save",
        1,
        Verb::SaveByName,
        "Save [list]         the same, to a file named after the sender",
    ),
    command(
        "copy",
        1,
        Verb::Copy,
        "copy [list] file    save without marking as saved",
    ),
    command(
        "Copy",
        1,
        Verb::CopyByName,
        "Copy [list]         the same, to a file named after the sender",
    ),
    command(
        "write",
        1,
        Verb::Write,
        "write [list] file   append messages to a file, without their headers",
    ),
    command(
        "reply",
        1,
        Verb::Reply,
        "reply [list]        answer sender and all recipients",
    ),
    command(
        "Reply",
        1,
        Verb::ReplySender,
        "Reply [list]        answer the sender only",
    ),
    command("respond", 3, Verb::Reply, ""),
    command("Respond", 3, Verb::ReplySender, ""),
    command("followup", 2, Verb::Reply, ""),
    command("Followup", 2, Verb::Reply, ""),
    command("mail", 1, Verb::Mail, "mail address ...    write a message"),
    command(
        "hold",
        2,
        Verb::Hold,
        "hold [list]         keep messages in the mailbox",
    ),
    command("preserve", 3, Verb::Hold, ""),
    command(
        "mbox",
        2,
        Verb::Mbox,
        "mbox [list]         move messages to your mbox when you quit",
    ),
    command("touch", 3, Verb::Touch, ""),
    command(
        "unread",
        3,
        Verb::Unread,
        "unread [list]       mark messages as not read",
    ),
    command("Unread", 1, Verb::Unread, ""),
    command(
        "file",
        2,
        Verb::File,
        "file [file]         say which mailbox this is, or open another",
    ),
    command("folder", 3, Verb::File, ""),
    command(
        "folders",
        7,
        Verb::Folders,
        "folders             list your folders",
    ),
    command(
        "pipe",
        2,
        Verb::Pipe,
        "pipe [list] command give messages to a command",
    ),
    command(
        "set",
        2,
        Verb::Set,
        "set [name[=value]]  set a variable, or show all",
    ),
    command("unset", 3, Verb::Unset, "unset name          unset it"),
    command(
        "alias",
        1,
        Verb::Alias,
        "alias name address  use a name for addresses",
    ),
    command("group", 1, Verb::Alias, ""),
    command("unalias", 3, Verb::Unalias, "unalias name        forget it"),
    command(
        "alternates",
        3,
        Verb::Alternates,
        "alternates address  say which other addresses are yours",
    ),
    command(
        "ignore",
        2,
        Verb::Ignore,
        "ignore field ...    show no such fields",
    ),
    command("discard", 2, Verb::Ignore, ""),
    command(
        "retain",
        3,
        Verb::Retain,
        "retain field ...    show only such fields",
    ),
    command(
        "source",
        2,
        Verb::Source,
        "source file         take commands from a file",
    ),
    command(
        "chdir",
        2,
        Verb::Chdir,
        "cd [directory]      change the directory",
    ),
    command("cd", 2, Verb::Chdir, ""),
    command("echo", 2, Verb::Echo, ""),
    command(
        "shell",
        2,
        Verb::Shell,
        "!command, shell     run a command, a shell",
    ),
    command(
        "list",
        1,
        Verb::List,
        "list                name all commands",
    ),
    command("help", 3, Verb::Help, "help, ?             show this"),
    command(
        "quit",
        1,
        Verb::Quit,
        "quit                leave, and remove what is deleted or saved",
    ),
    command(
        "exit",
        2,
        Verb::Exit,
        "exit, x             leave, and change nothing",
    ),
    command("xit", 1, Verb::Exit, ""),
];

/// A line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Only RETURN.
    Empty,
    Comment,
    Command(Verb, &'a str),
    /// A message list alone: show them.
    List(&'a str),
    Unknown(&'a str),
}

/// Reads a line.
pub(crate) fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    let Some(first) = line.chars().next() else {
        return Line::Empty;
    };
    let after = |n: usize| line.get(n..).unwrap_or_default().trim_start();
    match first {
        '#' if line.len() == 1
            || line
                .get(1..)
                .is_some_and(|r| r.starts_with([' ', '#', '!'])) =>
        {
            return Line::Comment;
        }
        '!' => return Line::Command(Verb::ShellCommand, after(1)),
        '|' => return Line::Command(Verb::Pipe, after(1)),
        '=' => return Line::Command(Verb::Where, after(1)),
        '?' => return Line::Command(Verb::Help, after(1)),
        '#' => return Line::Comment,
        _ => {}
    }
    let end = line
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    // `ann@x` is a list by its sender, `z+` a command.
    let ends_word = rest.is_empty() || rest.starts_with(|c: char| !c.is_alphabetic() && c != '@');
    if word.is_empty() || !ends_word {
        return Line::List(line);
    }
    match find(word) {
        Some(command) => Line::Command(command.verb, rest.trim()),
        None => Line::Unknown(word),
    }
}

fn find(word: &str) -> Option<&'static Command> {
    let whole = COMMANDS.iter().find(|c| c.name == word);
    whole.or_else(|| {
        let mut fitting = COMMANDS.iter().filter(|c| c.name.starts_with(word));
        fitting.find(|c| word.len() >= c.least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_abbreviations() {
        for (line, verb, rest) in [
            ("p", Verb::Print, ""),
            ("t 3", Verb::Print, "3"),
            ("T 3", Verb::PrintAll, "3"),
            ("d3", Verb::Delete, "3"),
            ("d *", Verb::Delete, "*"),
            ("dp", Verb::DeletePrint, ""),
            ("u", Verb::Undelete, ""),
            ("U", Verb::Unread, ""),
            ("unr 1", Verb::Unread, "1"),
            ("s 1-3 file", Verb::Save, "1-3 file"),
            ("S", Verb::SaveByName, ""),
            ("si", Verb::Size, ""),
            ("se x=y", Verb::Set, "x=y"),
            ("c + f", Verb::Copy, "+ f"),
            ("r", Verb::Reply, ""),
            ("R", Verb::ReplySender, ""),
            ("h$", Verb::Headers, "$"),
            ("ho", Verb::Hold, ""),
            ("f *", Verb::From, "*"),
            ("fi", Verb::File, ""),
            ("fold", Verb::File, ""),
            ("folders", Verb::Folders, ""),
            ("m ann", Verb::Mail, "ann"),
            ("mb", Verb::Mbox, ""),
            ("to", Verb::Top, ""),
            ("n", Verb::Next, ""),
            ("q", Verb::Quit, ""),
            ("x", Verb::Exit, ""),
            ("ex", Verb::Exit, ""),
            ("z-", Verb::Screen, "-"),
            ("?", Verb::Help, ""),
            ("!ls -l", Verb::ShellCommand, "ls -l"),
            ("=", Verb::Where, ""),
            ("| wc", Verb::Pipe, "wc"),
            ("w 1 x", Verb::Write, "1 x"),
            ("a team ann bob", Verb::Alias, "team ann bob"),
        ] {
            assert_eq!(parse(line), Line::Command(verb, rest), "{line}");
        }
    }

    #[test]
    fn lists_and_others() {
        for line in [
            "3",
            "2-5",
            "*",
            "$",
            "+",
            "/subject",
            ":n",
            "ann@example.org",
            ".",
            "件名",
        ] {
            assert_eq!(parse(line), Line::List(line));
        }
        assert_eq!(parse("  "), Line::Empty);
        assert_eq!(parse("# comment"), Line::Comment);
        assert_eq!(parse("frobnicate 1"), Line::Unknown("frobnicate"));
    }
}
