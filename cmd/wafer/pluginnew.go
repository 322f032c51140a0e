package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/sdk"
)

// newPlugin is the project that plugin new writes.
//
//go:embed newplugin newplugin/policies
var newPlugin embed.FS

// goVersion is the language version that a new project asks for.
const goVersion = "1.26"

// modulePath is the module whose packages a new project has in its vendor folder.
const modulePath = "github.com/wafermail/wafer"

type pluginNewCmd struct {
	Name string `arg:"" help:"Name of the plugin and of the folder that is made: lower-case letters, digits and hyphens."`
	ID   string `placeholder:"ID" help:"Its id, a reversed domain name (org.example.NAME)."`
}

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	pluginID   = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)
)

// Run writes a project that builds without a network.
func (c *pluginNewCmd) Run(std streams) error {
	name := filepath.Base(c.Name)
	if !pluginName.MatchString(name) || len(name) > 40 {
		return fmt.Errorf("%q cannot name a plugin: write lower-case letters, digits and hyphens, such as no-dynamic", name)
	}
	if c.ID == "" {
		c.ID = "org.example." + name
	}
	if !pluginID.MatchString(c.ID) {
		return fmt.Errorf("-id %q is no reversed domain name such as org.example.%s", c.ID, name)
	}
	if _, err := os.Lstat(c.Name); err == nil {
		return fmt.Errorf("%s is there already: choose another name, or remove it", c.Name)
	}
	files, err := projectFiles(name, c.ID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.Name), 0o755); err != nil {
		return err
	}
	// Made beside its place, so that there is never half a project.
	tmp, err := os.MkdirTemp(filepath.Dir(c.Name), "."+name+"-")
	if err != nil {
		return err
	}
	for path, b := range files {
		path = filepath.Join(tmp, filepath.FromSlash(path))
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, b, 0o644)
		}
		if err != nil {
			return errors.Join(err, os.RemoveAll(tmp))
		}
	}
	if err = os.Chmod(tmp, 0o755); err == nil {
		err = os.Rename(tmp, c.Name)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	_, err = fmt.Fprintf(std.out, `%s is a plugin that works. Go on with

    cd %s
    go test ./...
    wafer plugin build
    wafer policy test policies
`, c.Name, c.Name)
	return err
}

// projectFiles are the files of a new project by their paths.
func projectFiles(name, id string) (map[string][]byte, error) {
	files := map[string][]byte{
		"go.mod":             fmt.Appendf(nil, "module %s\n\ngo %s\n\nrequire %s v0.0.0\n", name, goVersion, modulePath),
		"vendor/modules.txt": fmt.Appendf(nil, "# %[1]s v0.0.0\n## explicit; go %[2]s\n%[1]s/sdk\n%[1]s/sdk/abi\n", modulePath, goVersion),
		".gitignore":         []byte("*.wasm\n"),
	}
	data := map[string]string{"Name": name, "ID": id}
	err := fs.WalkDir(newPlugin, "newplugin", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := newPlugin.ReadFile(path)
		if err != nil {
			return err
		}
		t, err := template.New(path).Parse(string(b))
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, data); err != nil {
			return err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(path, "newplugin/"), ".tmpl")
		switch to { // files are called after the plugin
		case "native_test.go":
			to = strings.ReplaceAll(name, "-", "_") + "_test.go"
		case "policies/policy.hcl":
			to = "policies/" + name + ".hcl"
		case "policies/policy_test.hcl":
			to = "policies/" + name + "_test.hcl"
		}
		text := out.Bytes()
		if strings.HasSuffix(to, ".hcl") { // names are of different lengths
			if text, _, err = config.Format(to, text); err != nil {
				return err
			}
		}
		files[to] = text
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(sdk.Source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := sdk.Source.ReadFile(path)
		files["vendor/"+modulePath+"/sdk/"+path] = b
		return err
	})
	return files, err
}
