package takeover

import (
	"strings"
	"testing"
)

// Why wafer and Dovecot describe some of the shared test messages differently.
const (
	noType    = "the Content-Type cannot be read: text/plain (RFC 2045 §5.2), Dovecot says \"\" \"\""
	noParts   = "a multipart without a usable boundary (RFC 2046 §5.1.1)"
	lineEnd   = "the line end before a boundary belongs to it (RFC 2046 §5.1.1); Dovecot counts it with a message that ends without a body of its own"
	longBound = "the boundary has more than 70 characters (RFC 2046 §5.1.1)"
	noAddress = "an address field against RFC 5322 §3.4"
	twice     = "a field that may come once comes twice (RFC 5322 §3.6)"
	badCoding = "the Content-Transfer-Encoding is no token (RFC 2045 §6.1)"
	emptyItem = "an empty item in an address list (RFC 5322 §4.4), which Dovecot makes an address of"
	noDispo   = "an empty or unreadable Content-Disposition or Content-Description"
)

// excused are the messages that are not well-formed, or where Dovecot departs from the
// RFC, by path.
func excused() map[string]string {
	return map[string]string{
		"cpython/msg_14.eml": noType, "dovecot/017.eml": noType, "enmime/barren-content-type.eml": noType, "enmime/ctype-invalid-characters.eml": noType,
		"enmime/empty-ctype-bad-content.eml": noType, "enmime/mime-bad-content-type.eml": noType, "enmime/mime-blank-media-name.eml": noType,
		"enmime/missing-closing-param-quote.eml": noType, "mimekit/missing-subtype.eml": noType, "mime-tools/multi-digest.eml": noType,

		"cpython/msg_25.eml": noParts, "cpython/msg_33.eml": noParts, "cpython/msg_41.eml": noParts, "enmime/multipart-wo-boundary.eml": noParts,
		"mikel-mail/raw_email_bad_time.eml": noParts, "mikel-mail/raw_email_with_illegal_boundary.eml": noParts, "mime-tools/double-semicolon.eml": noParts,

		"dovecot/007x.eml": lineEnd, "dovecot/015x.eml": lineEnd, "dovecot/022.eml": lineEnd, "mail-parser/008.eml": lineEnd, "mimekit/rfc2060.eml": lineEnd,

		"dovecot/016.eml": longBound, "mime4j/very-long-boundary.eml": longBound, "mime4j/very-very-long-boundary.eml": longBound,

		"mail-parser/009.eml": noAddress, "mikel-mail/example13.eml": noAddress, "mikel-mail/missing_body.eml": noAddress, "mikel-mail/mix_caps_content_type.eml": noAddress,
		"mikel-mail/raw_email_multiple_from.eml": noAddress, "mikel-mail/raw_email_with_at_display_name.eml": noAddress, "mimekit/feedback-report.eml": noAddress, "mimekit/issue358.eml": noAddress,

		"dovecot/019.eml": twice, "enmime/inlinemultipart.eml": twice, "enmime/malformed-multiple-address-header-values.eml": twice, "mikel-mail/raw_email_with_binary_encoded.eml": twice,
		"mikel-mail/raw_email_with_multipart_mixed_quoted_boundary.eml": twice, "mime-tools/hdr-fakeout.eml": twice,

		"dovecot/004x.eml": badCoding, "mikel-mail/content_transfer_encoding_qp_with_space.eml": badCoding, "mikel-mail/content_transfer_encoding_text-html.eml": badCoding,
		"mikel-mail/content_transfer_encoding_with_semi_colon.eml": badCoding,

		"mikel-mail/example11.eml": emptyItem, "mikel-mail/weird_to_header.eml": emptyItem,

		"mikel-mail/missing_content_disposition.eml": noDispo, "mikel-mail/multiple_invalid_content_dispositions.eml": noDispo, "mime-tools/infinite.eml": noDispo,
	}
}

// sameCorpus compares how both describe the shared test messages: the same wherever
// they are well-formed.
func sameCorpus(t *testing.T, w, d *conn) {
	t.Helper()
	files := corpusFiles(t)
	mine, his := w.look("Corpus", allItems), d.look("Corpus", allItems)
	if len(mine.messages) != len(files) || len(his.messages) != len(files) {
		t.Fatalf("%d files, wafer has %d, dovecot %d", len(files), len(mine.messages), len(his.messages))
	}
	why := excused()
	different := 0
	for i, path := range files {
		name := strings.TrimPrefix(path, corpusDir+"/")
		equal := true
		for _, item := range []string{"ENVELOPE", "BODYSTRUCTURE"} {
			a, b := mine.messages[i+1][item], his.messages[i+1][item]
			if a == b {
				continue
			}
			equal = false
			if why[name] == "" {
				from := max(0, common(a, b)-60)
				t.Errorf("%s of %s differs at octet %d\nwafer   %.260s\ndovecot %.260s", item, name, from, a[from:], b[from:])
			}
		}
		switch {
		case equal && why[name] != "":
			t.Errorf("%s is the same now: it needs no excuse (%s)", name, why[name])
		case !equal:
			different++
		}
	}
	t.Logf("%d messages, %d of them described differently", len(files), different)
}
