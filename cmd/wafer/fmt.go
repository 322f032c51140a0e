package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wafermail/wafer/core/config"
)

// fmtCmd formats HCL files.
type fmtCmd struct {
	Check bool     `help:"Change nothing; name the files that differ and exit with 2."`
	Paths []string `arg:"" help:"Files, and folders whose *.hcl files are meant."`
}

// Run rewrites the files, or names those that it would.
func (c *fmtCmd) Run(std streams) error {
	files, err := hclFiles(c.Paths)
	if err != nil {
		return err
	}
	differ := false
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		out, changed, err := config.Format(name, src)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		differ = true
		fmt.Fprintln(std.out, name)
		if c.Check {
			continue
		}
		if err := replaceFile(name, out); err != nil {
			return err
		}
	}
	if c.Check && differ {
		return exit(2)
	}
	return nil
}

// hclFiles lists the named files and the *.hcl files of the named folders.
func hclFiles(paths []string) (files []string, err error) {
	for _, p := range paths {
		fi, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !fi.IsDir() {
			files = append(files, p)
			continue
		}
		err = filepath.WalkDir(p, func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Ext(name) == ".hcl" {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// replaceFile puts b in the place of a file at once, with the file's mode.
func replaceFile(name string, b []byte) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(fi.Mode().Perm()), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), os.Remove(f.Name()))
	}
	return nil
}
