package imapd

import (
	"fmt"
	"slices"
	"strings"
)

// extension is something that IMAP4rev1 alone does not have, and that a listener can
// do without.
type extension struct {
	words    string   // in CAPABILITY, after login
	commands []string // that are unknown without it
	enable   string   // what ENABLE calls it
}

// extensions are in the order of CAPABILITY.
var extensions = [...]extension{ // never changed
	{words: "IDLE", commands: []string{"IDLE"}},
	{words: "NAMESPACE", commands: []string{"NAMESPACE"}},
	{words: "UNSELECT", commands: []string{"UNSELECT"}},
	{words: "UIDPLUS", commands: []string{"UID EXPUNGE"}},
	{words: "MOVE", commands: []string{"MOVE", "UID MOVE"}},
	{words: "CHILDREN"},
	{words: "LIST-EXTENDED"},
	{words: "LIST-STATUS"},
	{words: "SPECIAL-USE"},
	{words: "CREATE-SPECIAL-USE"},
	{words: "STATUS=SIZE"},
	{words: "ESEARCH"},
	{words: "SEARCHRES"},
	{words: "WITHIN"},
	{words: "SORT", commands: []string{"SORT", "UID SORT"}},
	{words: "SORT=DISPLAY"},
	{words: "ESORT"},
	{words: "THREAD=REFERENCES", commands: []string{"THREAD", "UID THREAD"}},
	{words: "THREAD=ORDEREDSUBJECT"},
	{words: "PARTIAL"},
	{words: "INPROGRESS"},
	{words: "BINARY"},
	{words: "CONDSTORE", enable: "CONDSTORE"},
	{words: "QRESYNC", enable: "QRESYNC"},
	{words: "NOTIFY", commands: []string{"NOTIFY"}},
	{words: "UNAUTHENTICATE", commands: []string{"UNAUTHENTICATE"}},
	{words: "UTF8=ACCEPT", enable: "UTF8=ACCEPT"},
	{words: "MULTIAPPEND"},
	{words: "REPLACE", commands: []string{"REPLACE", "UID REPLACE"}},
	{words: "OBJECTID"},
	{words: "SAVEDATE"},
	{words: "PREVIEW"},
	{words: "METADATA", commands: []string{"GETMETADATA", "SETMETADATA"}},
	{words: "LIST-METADATA"},
	{words: "QUOTA", commands: []string{"GETQUOTA", "GETQUOTAROOT", "SETQUOTA"}},
	{words: "QUOTA=RES-STORAGE"},
	{words: "QUOTA=RES-MESSAGE"},
	{words: "COMPRESS=DEFLATE", commands: []string{"COMPRESS"}},
}

// Extensions are the words that Config.Without may hold.
func Extensions() (words []string) {
	for _, x := range extensions {
		words = append(words, x.words)
	}
	return words
}

// offered are the words of CAPABILITY after login.
func (s *Server) offered() (words []string) {
	for _, x := range extensions {
		if !slices.Contains(s.c.Without, x.words) {
			words = append(words, x.words)
		}
	}
	return words
}

// missing reports whether a command or a word of ENABLE belongs to an extension that
// this server does without.
func (s *Server) missing(command string) bool {
	if len(s.c.Without) == 0 {
		return false
	}
	for _, x := range extensions {
		if slices.Contains(s.c.Without, x.words) && (slices.Contains(x.commands, command) || x.enable == command) {
			return true
		}
	}
	return false
}

// checkWithout finds words that are no extension.
func checkWithout(words []string) error {
	for _, w := range words {
		if all := Extensions(); !slices.Contains(all, w) {
			return fmt.Errorf("imap server: %q is no extension that can be left out; there are %s", w, strings.Join(all, ", "))
		}
	}
	return nil
}
