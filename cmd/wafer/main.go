// Command wafer is a mail server whose policy is WebAssembly: SMTP, submission,
// LMTP, IMAP, POP3 and Maildir in one binary.
//
// Exit codes: 0 good, 1 broken, 2 findings (fmt -check) or wrong usage.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
)

// version is set when a release is built.
var version = "devel"

// cli is the command line. Nouns are singular, flags few.
type cli struct {
	Run    runCmd    `cmd:"" help:"Serve until told otherwise."`
	Check  checkCmd  `cmd:"" help:"Parse and build the configuration, start nothing, print its digest."`
	Status statusCmd `cmd:"" help:"Ask the running server how it is."`
	Reload reloadCmd `cmd:"" help:"Make the running server use what is on disk now."`

	Rollback    rollbackCmd    `cmd:"" help:"Make the running server use an earlier generation again."`
	Generations generationsCmd `cmd:"" help:"List the generations that a rollback can go to."`

	Fmt     fmtCmd     `cmd:"" help:"Write configuration and policies in their canonical form."`
	User    userCmd    `cmd:"" help:"Add, change, list and remove users."`
	Mailbox mailboxCmd `cmd:"" help:"Look at mail stores, mend them, import and export."`
	Migrate migrateCmd `cmd:"" help:"Take over what other servers have left."`
	Queue   queueCmd   `cmd:"" help:"Show and steer the mail that waits."`
	Policy  policyCmd  `cmd:"" help:"Test, explain and log what may pass."`
	Plugin  pluginCmd  `cmd:"" help:"Look at policy plugins."`
	Demo    demoCmd    `cmd:"" help:"Serve a demo on loopback: a domain, a user, a certificate, real policies."`

	Version kong.VersionFlag `help:"Print the version."`
}

// streams are the standard ones; tests give others.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exit is an error that has been explained already.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() {
	std := streams{os.Stdin, os.Stdout, os.Stderr}
	if code, ok := classic(filepath.Base(os.Args[0]), os.Args[1:], std); ok {
		os.Exit(code)
	}
	os.Exit(wafer(os.Args[1:], std))
}

// wafer runs one command and returns its exit code.
func wafer(args []string, std streams) int {
	if len(args) > 0 {
		if code, ok := classic(args[0], args[1:], std); ok {
			return code
		}
	}
	var c cli
	parser, err := kong.New(&c,
		kong.Name("wafer"),
		kong.Description("A mail server whose policy is WebAssembly."),
		kong.Vars{"version": version},
		kong.Writers(std.out, std.err),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(std.err, "wafer:", err)
		return 1
	}
	ctx, err := parser.Parse(twoDashes(args))
	if err != nil {
		fmt.Fprintln(std.err, "wafer:", err)
		return 2
	}
	err = ctx.Run(std)
	var code exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(std.err, "wafer:", err)
	return 1
}

// twoDashes lets flags be written as Go's tools have them: "-json" is "--json".
// A flag of one letter, with or without its value behind "=", stays; so does
// everything after "--".
func twoDashes(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		name, _, _ := strings.Cut(arg, "=")
		if len(name) > 2 && name[0] == '-' && name[1] != '-' && strings.Trim(name, "-abcdefghijklmnopqrstuvwxyz") == "" {
			arg = "-" + arg
		}
		out[i] = arg
	}
	return out
}
