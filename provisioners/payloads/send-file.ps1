# Prints the file that a line of JSON on standard input names (path): lines of Base64, then a line of JSON with `result`
# (ok, missing, is-folder, failed), `message` and `sha256`. Runs from a command line: keep it under 3000 characters.
$ErrorActionPreference = 'Stop'
$settings = @($input)[0] | ConvertFrom-Json
$answer = @{ result = 'ok'; message = ''; sha256 = '' }
try {
    $path = [IO.Path]::GetFullPath($settings.path)
    if ([IO.Directory]::Exists($path)) {
        $answer.result = 'is-folder'
    } elseif (-not [IO.File]::Exists($path)) {
        $answer.result = 'missing'
    } else {
        $file = New-Object IO.FileStream($path, 'Open', 'Read', 'ReadWrite')
        $sha = New-Object Security.Cryptography.SHA256CryptoServiceProvider
        $buffer = New-Object byte[] 49152
        while (($count = $file.Read($buffer, 0, $buffer.Length)) -gt 0) {
            [void]$sha.TransformBlock($buffer, 0, $count, $null, 0)
            [Console]::Out.WriteLine([Convert]::ToBase64String($buffer, 0, $count))
        }
        [void]$sha.TransformFinalBlock($buffer, 0, 0)
        $answer.sha256 = [BitConverter]::ToString($sha.Hash).Replace('-', '').ToLower()
        $file.Close()
    }
} catch {
    $answer.result = 'failed'
    $answer.message = $_.Exception.GetBaseException().Message
}
[Console]::Out.WriteLine(($answer | ConvertTo-Json -Compress))
