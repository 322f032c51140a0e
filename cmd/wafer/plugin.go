package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/wasm"
)

// pluginCmd is about plugins.
type pluginCmd struct {
	List    pluginListCmd    `cmd:"" help:"List the plugins that are built in."`
	New     pluginNewCmd     `cmd:"" help:"Write a small plugin to begin with: its folder builds without a network."`
	Build   pluginBuildCmd   `cmd:"" help:"Compile a plugin with stock Go."`
	Inspect pluginInspectCmd `cmd:"" help:"Print what a module says about itself, what it needs, and what it would be refused for."`
	Ask     pluginAskCmd     `cmd:"" help:"Ask a plugin once, in the sandbox."`
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
	JSON   bool   `help:"Print JSON."`
}

// Run exits with 2 if no server would load the module.
func (c *pluginInspectCmd) Run(std streams) error {
	x, err := core.Examine(context.Background(), c.Plugin)
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std, inspected(x))
	} else {
		err = describe(std, x)
	}
	if err == nil && x.Refused != nil {
		return exit(2)
	}
	return err
}

// inspected is an examination as JSON shows it.
func inspected(x *wasm.Examination) map[string]any {
	out := map[string]any{"size": x.Size, "digest": x.Digest, "memory": x.Memory, "loadable": x.Refused == nil}
	if x.Refused != nil {
		out["refused"] = x.Refused.Error()
	}
	imports := []map[string]any{}
	for _, i := range x.Imports {
		imports = append(imports, map[string]any{"module": i.Module, "name": i.Name, "grant": i.Grant, "known": i.Known})
	}
	out["imports"] = imports
	m := x.Manifest
	if m == nil {
		return out
	}
	var stages, needs []string
	for _, s := range m.Stages {
		stages = append(stages, s.String())
	}
	grants := []map[string]any{}
	for _, g := range m.Grants {
		grants = append(grants, map[string]any{"name": g.Name, "optional": g.Optional, "help": g.Help})
	}
	fields := []map[string]any{}
	for _, f := range m.Fields {
		fields = append(fields, map[string]any{"name": f.Name, "type": f.Type.String(), "required": f.Required, "default": f.Default, "choices": f.Choices, "help": f.Help})
	}
	needs = append(needs, x.Needs()...)
	out["manifest"] = map[string]any{
		"id": m.ID, "version": m.Version, "help": m.Help, "abi": fmt.Sprintf("%d.%d", m.ABI>>16, m.ABI&0xffff),
		"stages": stages, "grants": grants, "fields": fields,
	}
	out["needs"], out["required"] = needs, x.Missing()
	return out
}

// describe prints an examination for people.
func describe(std streams, x *wasm.Examination) error {
	if m := x.Manifest; m != nil {
		fmt.Fprintf(std.out, "%s %s: %s\n", m.ID, m.Version, m.Help)
		fmt.Fprintf(std.out, "digest %s, ABI %d.%d, %d octets, memory from %d KiB\n", x.Digest, m.ABI>>16, m.ABI&0xffff, x.Size, x.Memory>>10)
		var stages []string
		for _, s := range m.Stages {
			stages = append(stages, s.String())
		}
		fmt.Fprintf(std.out, "stages: %s\n", strings.Join(stages, ", "))
	} else {
		fmt.Fprintf(std.out, "digest %s, %d octets, no manifest\n", x.Digest, x.Size)
	}
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "imports:\n")
	for _, i := range x.Imports {
		note := ""
		switch {
		case !i.Known:
			note = "not offered by this server"
		case i.Grant != "":
			note = fmt.Sprintf("needs allow = [%q]", i.Grant)
		}
		fmt.Fprintf(w, "  %s.%s\t%s\n", i.Module, i.Name, note)
	}
	if m := x.Manifest; m != nil {
		for _, g := range m.Grants {
			need := "required"
			if g.Optional {
				need = "optional"
			}
			fmt.Fprintf(w, "allow %q (%s)\t%s\n", g.Name, need, g.Help)
		}
		for _, f := range m.Fields {
			fallback := strings.Join(f.Default, ", ")
			if f.Required {
				fallback = "required"
			}
			fmt.Fprintf(w, "with.%s\t%s\t%s\t%s\n", f.Name, f.Type, fallback, f.Help)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if x.Refused != nil {
		_, err := fmt.Fprintf(std.out, "refused: %v\n", x.Refused)
		return err
	}
	var conditions []string
	if need := x.Needs(); len(need) > 0 {
		conditions = append(conditions, fmt.Sprintf("allow = [%q]", strings.Join(need, `", "`)))
	}
	if missing := x.Missing(); len(missing) > 0 {
		conditions = append(conditions, "with."+strings.Join(missing, ", with."))
	}
	text := "refused for nothing"
	if len(conditions) > 0 {
		text = "refused without " + strings.Join(conditions, " and ")
	}
	_, err := fmt.Fprintln(std.out, strings.ReplaceAll(text, `\"`, `"`))
	return err
}
