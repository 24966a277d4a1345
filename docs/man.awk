# man.awk - the manual page, from what --help prints: prenorm --help | awk -f docs/man.awk > prenorm.1
#
# A heading ends with a colon; an option begins with blanks and a hyphen, and what it does stands from column
# 29 on, in its line and in those that follow.
function roff(text) {                                   # what roff prints as this text
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/^ +| +$/, "", text)
    return text
}
NR == 1  { print ".TH " toupper(roff($2)) " 1\n.SH NAME\n" roff($2 " - run a LLaMA model: write, chat, measure")
           print ".SH SYNOPSIS\n.B " roff($2) "\n" roff(substr($0, length("usage: " $2) + 1)) "\n.SH DESCRIPTION" }
NR == 1 || /^$/ { next }
/^ +-/   { print ".TP\n.B " roff(substr($0, 1, 28)) }
/^ /     { print roff(substr($0, 29)); next }
/:$/     { print ".SH " toupper(roff(substr($0, 1, length($0) - 1))); next }
         { print roff($0) }
