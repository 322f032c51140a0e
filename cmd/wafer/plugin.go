package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/wafermail/wafer/core"
)

// pluginCmd is about plugins.
type pluginCmd struct {
	List    pluginListCmd    `cmd:"" help:"List the plugins that are built in."`
	Inspect pluginInspectCmd `cmd:"" help:"Print what a module says about itself."`
}

type pluginListCmd struct{}

// Run prints one name on a line.
func (c *pluginListCmd) Run(std streams) error {
	for _, name := range core.Plugins() {
		fmt.Fprintln(std.out, name)
	}
	return nil
}

type pluginInspectCmd struct {
	Plugin string `arg:"" help:"Name of a plugin that is built in, or the path of a .wasm file."`
}

// Run loads the module in the sandbox and prints its manifest.
func (c *pluginInspectCmd) Run(std streams) error {
	m, err := core.Inspect(context.Background(), c.Plugin)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "%s %s: %s\ndigest %s, ABI %d.%d, %d octets\n", m.ID, m.Version, m.Help, m.Digest, m.ABI>>16, m.ABI&0xffff, m.Size)
	var stages []string
	for _, s := range m.Stages {
		stages = append(stages, s.String())
	}
	fmt.Fprintf(std.out, "stages: %s\n", strings.Join(stages, ", "))
	for _, g := range m.Grants {
		need := "required"
		if g.Optional {
			need = "optional"
		}
		fmt.Fprintf(std.out, "allow %q (%s): %s\n", g.Name, need, g.Help)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	for _, f := range m.Fields {
		fmt.Fprintf(w, "with.%s\t%s\t%s\t%s\n", f.Name, f.Type, strings.Join(f.Default, ", "), f.Help)
	}
	return w.Flush()
}
