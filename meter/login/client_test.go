package login

import (
	"crypto/tls"
	"net"
	"net/smtp"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"

	"mailbag/testdata/certificate"
)

// initialLess is a client that waits for an empty challenge before it says what it has to say.
type initialLess struct {
	sasl.Client
	initial []byte
	said    bool
}

func withoutInitial(c sasl.Client) sasl.Client { return &initialLess{Client: c} }

func (c *initialLess) Start() (mechanism string, response []byte, err error) {
	mechanism, c.initial, err = c.Client.Start()
	return mechanism, nil, err
}

func (c *initialLess) Next(challenge []byte) ([]byte, error) {
	if c.said {
		return c.Client.Next(challenge)
	}
	c.said = true
	return c.initial, nil
}

// cramClient is CRAM-MD5 as net/smtp does it.
type cramClient struct{ smtp.Auth }

func newCRAMClient(user, password string) sasl.Client {
	return cramClient{smtp.CRAMMD5Auth(user, password)}
}

func (c cramClient) Start() (string, []byte, error) { return c.Auth.Start(&smtp.ServerInfo{}) }

func (c cramClient) Next(challenge []byte) ([]byte, error) { return c.Auth.Next(challenge, true) }

// scramClient is SCRAM as github.com/xdg-go/scram does it, which checks the server's proof.
type scramClient struct {
	mechanism string
	talk      *scram.ClientConversation
}

func newSCRAMClient(user, password string) sasl.Client {
	return scramClient{"SCRAM-SHA-256", newSCRAM256(user, password, "").NewConversation()}
}

func newSCRAM256(user, password, authzid string) *scram.Client {
	c, err := scram.SHA256.NewClient(user, password, authzid)
	if err != nil {
		panic(err)
	}
	return c
}

func (c scramClient) Start() (string, []byte, error) {
	first, err := c.talk.Step("")
	return c.mechanism, []byte(first), err
}

func (c scramClient) Next(challenge []byte) ([]byte, error) {
	response, err := c.talk.Step(string(challenge))
	return []byte(response), err
}

// A channel is a TLS connection after its handshake, from both ends.
type channel struct {
	server Peer
	client tls.ConnectionState
}

// handshake does one, of this version of TLS, over a real connection.
func handshake(t testing.TB, version uint16) channel {
	t.Helper()
	c := certificate.New(t, "localhost")
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan Peer, 1)
	go func() {
		defer close(accepted)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c.Pair}})
		if server.Handshake() == nil {
			state := server.ConnectionState()
			accepted <- Peer{Addr: outside.Addr, TLS: &state}
		}
	}()
	conn, err := tls.Dial("tcp4", l.Addr().String(), &tls.Config{RootCAs: c.Roots, ServerName: "localhost", MinVersion: version, MaxVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, ok := <-accepted
	if !ok {
		t.Fatal("the server did not finish its handshake")
	}
	return channel{server: peer, client: conn.ConnectionState()}
}

// binding is the client's end of what [Peer.binding] returns.
func (c channel) binding() scram.ChannelBinding {
	if c.client.Version == tls.VersionTLS12 {
		return scram.NewTLSUniqueBinding(c.client.TLSUnique)
	}
	b, err := scram.NewTLSExporterBinding(&c.client)
	if err != nil {
		panic(err)
	}
	return b
}

// newSCRAMClient is a client that binds its log-in to the channel.
func (c channel) newSCRAMClient(user, password string) sasl.Client {
	return scramClient{"SCRAM-SHA-256-PLUS", newSCRAM256(user, password, "").NewConversationWithChannelBinding(c.binding())}
}
