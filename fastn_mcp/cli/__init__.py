"""The command line: `program` is the `fastn-mcp` command, `help.COMMANDS` lists its subcommands."""
