# Takes a file from standard input. First a line of JSON: path, sha256 (lower case), and `from`, either empty or a file
# (with %VARIABLES% or not) that holds the Base64 lines. Then lines of Base64, each a piece of the file. Answers with a
# line of JSON: `result` is ok, no-folder, is-folder, no-space, denied, corrupt or failed. Runs from a command line: keep
# it under 3000 characters.
begin {
    $ErrorActionPreference = 'Stop'
    $settings = $null
    $stream = $null
    $from = ''
    $result = 'ok'
    $message = ''
    function Get-Problem($exception) {
        switch ($exception.HResult) {
            -2147024784 { return 'no-space' }
            -2147024857 { return 'no-space' }
            -2147024891 { return 'denied' }
        }
        if ($exception -is [FormatException]) { return 'corrupt' }
        return 'failed'
    }
    function Add-Piece($line) {
        $bytes = [Convert]::FromBase64String($line)
        $stream.Write($bytes, 0, $bytes.Length)
    }
}
process {
    if ($result -ne 'ok' -or -not $_) { return }
    try {
        if ($null -ne $settings) {
            Add-Piece $_
            return
        }
        $settings = $_ | ConvertFrom-Json
        $from = [Environment]::ExpandEnvironmentVariables($settings.from)
        $path = [IO.Path]::GetFullPath($settings.path)
        $part = $path + '.aib-part'
        if ([IO.Directory]::Exists($path)) {
            $result = 'is-folder'
        } elseif (-not [IO.Directory]::Exists([IO.Path]::GetDirectoryName($path))) {
            $result = 'no-folder'
        } else {
            $stream = [IO.File]::Create($part)
        }
    } catch {
        $problem = $_.Exception.GetBaseException()
        $result = Get-Problem $problem
        $message = $problem.Message
    }
}
end {
    try {
        if ($result -eq 'ok' -and $from) {
            foreach ($line in [IO.File]::ReadAllLines($from)) { Add-Piece $line }
        }
        if ($null -ne $stream) { $stream.Close() }
        if ($result -eq 'ok') {
            $file = [IO.File]::OpenRead($part)
            $hash = (New-Object Security.Cryptography.SHA256CryptoServiceProvider).ComputeHash($file)
            $file.Close()
            $sum = [BitConverter]::ToString($hash).Replace('-', '').ToLower()
            if ($sum -ne $settings.sha256) {
                $result = 'corrupt'
                $message = $sum
            } else {
                if ([IO.File]::Exists($path)) { [IO.File]::Delete($path) }
                [IO.File]::Move($part, $path)
            }
        }
    } catch {
        $problem = $_.Exception.GetBaseException()
        $result = Get-Problem $problem
        $message = $problem.Message
    }
    if ($result -ne 'ok' -and $null -ne $stream) {
        try { $stream.Close() } catch { }
        try { [IO.File]::Delete($part) } catch { }
    }
    if ($from) { [IO.File]::Delete($from) }
    [Console]::Out.WriteLine((@{ result = $result; message = $message } | ConvertTo-Json -Compress))
}
